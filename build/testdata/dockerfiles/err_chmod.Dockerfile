FROM alpine
COPY --chmod=9999 a b
