#test: arg VERSION=2
#test: arg HTTP_PROXY=http://p
ARG VERSION=1
ARG UNSEEN=u
FROM alpine
ARG VERSION
ARG WITH=${VERSION}x
ARG NONE
ENV A=1 B="b $A" C='$A' VERSION=env$VERSION
ENV LEGACY some value here
RUN echo $VERSION $UNSEEN ${A:-d} ${NO:-d}
LABEL v=${VERSION} a.b="c d"
ENV X=${A:+set} Y=${NO:+set} Z=${WITH#2} W=${WITH%x} R=${WITH/x/y}
ARG TARGETARCH
RUN echo $TARGETARCH
CMD echo $VERSION
