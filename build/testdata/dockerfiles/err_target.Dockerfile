#test: target=buildr
FROM alpine AS builder
FROM builder
