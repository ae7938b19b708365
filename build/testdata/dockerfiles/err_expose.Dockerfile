FROM alpine
EXPOSE 80/tcpp
