#test: target=MID
FROM alpine AS base
RUN base
FROM base AS mid
RUN mid
FROM mid AS last
RUN last
