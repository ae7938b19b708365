FROM alpine AS tools
RUN make tools
FROM onbuild
RUN after
