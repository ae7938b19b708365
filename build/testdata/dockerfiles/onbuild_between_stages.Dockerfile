FROM alpine AS one
ONBUILD RUN echo triggered
RUN echo one
FROM one AS two
RUN echo two
