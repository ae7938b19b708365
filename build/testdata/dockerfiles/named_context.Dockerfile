#test: context=base
FROM alpine AS base
RUN never
FROM base
COPY --from=other /x /y
RUN after
