#!/bin/bash
# Builds the container image. The context is staged (our files and "go mod vendor"),
# so that the build itself needs no network; it is switched off to prove that.
# usage: image.sh TAG VERSION
set -eu
tag=$1 version=$2
cd "$(dirname "$0")/.."
image=golang:1.26-bookworm
cache=${META1_TEST_CACHE:-/var/cache/meta1-test}

say() { echo "image: $*"; }
die() { say "$*" >&2; exit 1; }

docker version >/dev/null 2>&1 || die "no Docker engine answers (docker version)"
# standin makes an image with the name of the official one out of Debian and the
# Go that is installed here.
standin() {
	say "$image cannot be pulled: a stand-in is made of debootstrap and $(go env GOROOT)"
	[ "$(id -u)" = 0 ] || die "debootstrap needs root"
	command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
	root=$cache/golang-root
	if [ ! -e "$root/complete" ]; then
		rm -rf "$root"
		mkdir -p "$root"
		debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >"$cache/debootstrap.log" 2>&1 ||
			{ tail -n 5 "$cache/debootstrap.log" >&2; die "debootstrap failed"; }
		touch "$root/complete"
	fi
	rm -rf "$root/usr/local/go"
	cp -a "$(go env GOROOT)" "$root/usr/local/go"
	tar -C "$root" -c . | docker import \
		--change 'ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
		--change 'ENV GOPATH=/go' --change 'ENV GOTOOLCHAIN=local' --change 'WORKDIR /go' \
		--change 'LABEL stand-in=debootstrap' - "$image" >/dev/null
}

docker image inspect "$image" >/dev/null 2>&1 ||
	timeout 300 docker pull -q "$image" >/dev/null 2>&1 || standin

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git ls-files --cached --others --exclude-standard -z |
	while IFS= read -r -d '' f; do [ ! -f "$f" ] || printf '%s\0' "$f"; done |
	tar -c --null -T - | tar -x -C "$context"
say "vendoring the modules"
( cd "$context" && go mod vendor )
say "building $tag ($version)"
DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} docker build -q --network none --build-arg "VERSION=$version" -t "$tag" "$context"
