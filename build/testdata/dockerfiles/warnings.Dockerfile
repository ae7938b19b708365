from alpine as Base
ENV a b
MAINTAINER x
RUN echo \

  more
