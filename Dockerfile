# meta1 in a container: one static binary, no shell, not root.
#
#   docker build -t meta1 .            (or "make image", which needs no network)
#   docker run -d -p 25:25 -p 127.0.0.1:9025:9025 --hostname mx.example.org \
#       -v meta1-spool:/var/spool/meta1 -v /etc/meta1:/etc/meta1:ro meta1
#
# The spool must be a volume: mail that was accepted lives there. docs/container.md
# says more.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/meta1 . \
 && mkdir -p /out/etc /out/spool \
 && echo 'meta1:x:10025:10025:meta1:/var/spool/meta1:/nonexistent' >/out/etc/passwd \
 && echo 'meta1:x:10025:' >/out/etc/group

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/etc /etc
COPY --from=build /src/container /etc/meta1
COPY --from=build /out/meta1 /meta1
COPY --from=build --chown=10025:10025 /out/spool /var/spool/meta1
USER 10025:10025
VOLUME /var/spool/meta1
WORKDIR /var/spool/meta1
EXPOSE 25 9025
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/meta1", "healthcheck", "-f", "/etc/meta1/meta1.conf"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/meta1"]
CMD ["serve", "-f", "/etc/meta1/meta1.conf"]
