FROM alpine AS one
FROM scratch
COPY --from=7 /a /b
