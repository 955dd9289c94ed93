# syntax=docker/dockerfile:1
# Builds one image for each service:  docker build --target edge --tag tutti-edge .
# The argument PROFILE is the Cargo profile: `release`, or `compose`, which builds in a fraction of the time.

FROM rust:1.95-slim-bookworm AS build
# What it takes to compile librdkafka and jemalloc, and to link OpenSSL.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG PROFILE=release
# All binaries come from one call of cargo, which compiles once what they share. They are copied out of target, which is a
# cache mount and no part of the layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --profile "$PROFILE" --features jemalloc \
        --package tutti-ingest --package tutti-queue --package tutti-notify --package tutti-edge \
        --package tutti \
    && install -D --target-directory=/out \
        "target/$PROFILE/tutti-ingest" "target/$PROFILE/tutti-queue" "target/$PROFILE/tutti-notify" \
        "target/$PROFILE/tutti-edge" "target/$PROFILE/tutti"

FROM debian:bookworm-slim AS runtime
# The binaries link Debian's OpenSSL dynamically, so a new build of the image has its fixes, and scanners see its version.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libssl3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# SSL_CERT_FILE: the folder in which OpenSSL looks for certificates by default comes with a package that is not installed.
# TUTTI_ADMIN_LISTEN: the default is the loopback address, which cannot be reached from outside a container.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    TUTTI_ADMIN_LISTEN=0.0.0.0:9100
# The user is a number, because Kubernetes cannot tell of a name that it is not root.
USER 10001:10001
EXPOSE 9100
STOPSIGNAL SIGTERM

FROM runtime AS ingest
COPY --from=build /out/tutti-ingest /usr/local/bin/tutti-ingest
ENTRYPOINT ["/usr/local/bin/tutti-ingest"]

# The queue needs a key to sign passes with: TUTTI_PASSES_KEY_FILE names a file that user 10001 can read.
FROM runtime AS queue
COPY --from=build /out/tutti-queue /usr/local/bin/tutti-queue
ENV TUTTI_GRPC_LISTEN=0.0.0.0:9200
EXPOSE 9200
ENTRYPOINT ["/usr/local/bin/tutti-queue"]

FROM runtime AS notify
COPY --from=build /out/tutti-notify /usr/local/bin/tutti-notify
ENV TUTTI_GRPC_LISTEN=0.0.0.0:9201
EXPOSE 9201
ENTRYPOINT ["/usr/local/bin/tutti-notify"]

FROM runtime AS edge
COPY --from=build /out/tutti-edge /usr/local/bin/tutti-edge
ENV TUTTI_HTTP_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/tutti-edge"]

# The developer's tool, as in `docker run tutti-tool sim taxis --brokers ...`.
FROM runtime AS tool
COPY --from=build /out/tutti /usr/local/bin/tutti
ENTRYPOINT ["/usr/local/bin/tutti"]
