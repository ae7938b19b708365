ARG BASE
FROM --platform=linux/amd64 sc${BASE}ratch AS one
FROM --platform=$TARGETPLATFORM scratch AS two
FROM scratch${TYPO:-} AS two
LABEL legacy form
ENV API_TOKEN=x
ARG PUBLIC_KEY
WORKDIR relative
workdir again
LABEL a=$nothing b=$PUBLIC_KEY
EXPOSE 8080:80/TCP
CMD first
CMD second
ENTRYPOINT ["/x"]
