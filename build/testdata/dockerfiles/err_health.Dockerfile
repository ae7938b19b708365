FROM alpine
HEALTHCHECK --interval=0.1ms CMD x
