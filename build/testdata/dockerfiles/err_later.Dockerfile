FROM alpine AS one
COPY --from=two /a /b
FROM alpine AS two
FROM one
