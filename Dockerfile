# syntax=docker/dockerfile:1

# The two stages are of the same Debian, because the binary is linked against the C library of the first.
FROM golang:1.26-trixie AS build
WORKDIR /src
COPY . .
ARG VERSION=devel
# Not "go mod download": it would fetch DuckDB for every platform. -s -w leaves out what only a debugger reads, a fifth
# of the size.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=1 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /flightd ./cmd/flightd \
    && install -d /data

# DuckDB needs libstdc++, which the slim image has. Nothing is installed, so there is nothing to keep up to date but
# the image itself.
FROM debian:trixie-slim
COPY --from=build /flightd /usr/local/bin/flightd
# A fresh volume takes the owner of the folder that it covers.
COPY --from=build --chown=65532:65532 /data /data
# A number and no name, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 31337 31338
# Loopback inside a container is reached by nobody outside, so the server must listen on all addresses of the
# container. It has no encryption and no users yet: --insecure says that whoever reaches the published ports is
# trusted. Publish them on loopback or a private network only.
ENV FLIGHTD_DATA=/data \
    FLIGHTD_LISTEN=0.0.0.0:31337 \
    FLIGHTD_HTTP=0.0.0.0:31338 \
    FLIGHTD_INSECURE=true
# The image has no curl; bash opens the connection by itself. Replaying a long log takes its time: --start-period.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/31338 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["flightd"]
CMD ["serve"]
