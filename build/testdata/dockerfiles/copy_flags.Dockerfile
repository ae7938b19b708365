FROM alpine AS src
FROM golang
COPY --chown=app:app --chmod=755 a b c/
COPY --chmod=u=rwX,go=rX --link a /b
COPY --parents --exclude=*.tmp x/./y/*.go /dst/
COPY ["with space", "dest dir/"]
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/f.tgz /opt/
ADD https://github.com/moby/buildkit.git#v0.1:docs /docs
ADD archive.tar.gz .
