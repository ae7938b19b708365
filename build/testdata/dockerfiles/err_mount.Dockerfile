FROM alpine
RUN --mount=type=nope,target=/x true
