FROM alpine
SHELL /bin/sh
