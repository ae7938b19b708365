# syntax=docker/dockerfile:1
ARG BASE=golang
FROM $BASE AS builder
WORKDIR src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache go mod download
COPY . .
RUN CGO_ENABLED=0 go build -o /out/app .

FROM alpine AS unused
RUN echo never

FROM scratch
COPY --from=builder /out/app /app
COPY --from=alpine --chown=1:2 /etc/ssl /etc/ssl
COPY --from=0 /go /go/
USER 1000:1000
EXPOSE 8080 9000-9002/udp
ENTRYPOINT ["/app"]
