# syntax=docker/dockerfile:1
# The server image: build makes the Debian package, runtime installs it.
#   docker build -t dimmer-server .
#   docker run -p 8001:8001 -v "$PWD/models:/var/lib/dimmer/models:ro" dimmer-server
# docs/deploy.md says more.

FROM debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/install-packages.sh deploy/debian-packages.txt deploy/
RUN deploy/install-packages.sh build server engine packaging && rm -rf /var/lib/apt/lists/*
COPY . .
ARG CCACHE_DIR=/root/.cache/ccache
ENV CCACHE_BASEDIR=/src CCACHE_NOHASHDIR=1 LANG=C.UTF-8
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset package -DDIMMER_MODEL_PACKAGE=OFF && \
    cmake --build --preset package

FROM debian:bookworm-slim AS runtime
COPY --from=build /src/build/package/packages/ /tmp/packages/
# The user has a fixed id, so that volumes can be made ready for it.
RUN groupadd --system --gid 10001 dimmer && \
    useradd --system --uid 10001 --gid dimmer --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin dimmer && \
    apt-get update && \
    apt-get install -y --no-install-recommends /tmp/packages/dimmer-server_*.deb && \
    install -d -o dimmer -g dimmer -m 0750 /var/lib/dimmer/state && \
    rm -rf /tmp/packages /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

LABEL org.opencontainers.image.title="dimmer-server" \
      org.opencontainers.image.description="Inference server with a compute budget per request" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
# The package listens on the loopback interface; a container has a network of its own.
ENV DIMMER_CONFIG=/etc/dimmer/server.yaml \
    DIMMER_ADDRESS=0.0.0.0
USER 10001:10001
VOLUME ["/var/lib/dimmer/models", "/var/lib/dimmer/state"]
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# Reads the same configuration and environment as the server, so it asks the right port.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 \
  CMD ["dimmer-server", "--health-check"]
ENTRYPOINT ["dimmer-server"]
