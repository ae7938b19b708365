FROM alpine
RUN true
RUNN false
