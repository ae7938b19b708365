ARG X=a
FROM alpine
COPY --from=$X /a /b
