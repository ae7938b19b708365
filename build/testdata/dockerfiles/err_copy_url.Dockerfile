FROM alpine
COPY https://example.com/x /x
