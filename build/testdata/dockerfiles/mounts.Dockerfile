FROM alpine AS b
FROM alpine
WORKDIR /w
ARG CACHE=/c
RUN --mount=type=cache,target=$CACHE,sharing=locked,id=x --mount=type=bind,from=b,source=/etc,target=rel --mount=type=secret,id=tok,env=TOKEN --mount=type=ssh --mount=type=tmpfs,target=/t --network=none echo $TOKEN
