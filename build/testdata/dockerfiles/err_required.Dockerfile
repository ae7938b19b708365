FROM alpine
ENV A=${MISSING:?must be set}
