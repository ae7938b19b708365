# escape=`
FROM alpine
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN a | `
    # a comment inside
    b
RUN ["exec", "form"]
HEALTHCHECK --interval=5s --timeout=3s --retries=4 CMD curl -f http://localhost/
STOPSIGNAL SIGUSR1
VOLUME ["/data", "/more"]
VOLUME /a /b
MAINTAINER somebody
ONBUILD RUN echo later
ONBUILD COPY . /app
WORKDIR /one
WORKDIR two
WORKDIR /
USER app:grp
