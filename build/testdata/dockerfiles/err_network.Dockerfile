FROM alpine
RUN --network=moon true
