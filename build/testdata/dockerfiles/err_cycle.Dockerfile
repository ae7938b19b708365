FROM alpine AS one
COPY --from=two /a /b
FROM alpine AS two
COPY --from=one /a /b
