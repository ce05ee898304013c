# meta1 in a container: one static binary, no shell, not root.
#
#   make image                         (with Go on this machine; needs no other image)
#   docker build -t meta1 .            (with the Go image; downloads the Go modules)
#   docker run -d -p 25:25 -p 127.0.0.1:9025:9025 --hostname mx.example.org \
#       -v meta1-spool:/var/spool/meta1 meta1
#
# The spool must be a volume: mail that was accepted lives there. docs/container.md
# says more.

FROM golang:1.26-bookworm AS build
LABEL stage=meta1-build
WORKDIR /src
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/meta1 . \
 && mkdir -p /out/spool

# "make image" builds this stage alone: scripts/image.sh makes what the first one would.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/meta1 /meta1
COPY --chown=10025:10025 --from=build /out/spool /var/spool/meta1
COPY container/passwd container/group /etc/
COPY container/access container/meta1.conf container/mt /etc/meta1/
USER 10025:10025
VOLUME /var/spool/meta1
WORKDIR /var/spool/meta1
EXPOSE 25 9025
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/meta1", "healthcheck", "-f", "/etc/meta1/meta1.conf"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/meta1"]
CMD ["serve", "-f", "/etc/meta1/meta1.conf"]
