#!/bin/bash
# Builds the container image with the Go of this machine: the last stage of the
# Dockerfile, with what its first stage would make. No image is downloaded, and the
# build has no network.
# usage: image.sh TAG VERSION
set -eu
tag=$1 version=$2
cd "$(dirname "$0")/.."
certs=/etc/ssl/certs/ca-certificates.crt

die() { echo "image: $*" >&2; exit 1; }

docker version >/dev/null 2>&1 || die "no Docker engine answers (docker version)"
[ -e "$certs" ] || die "$certs is missing: install ca-certificates"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/build/out/spool" "$context/build${certs%/*}"
cp "$certs" "$context/build$certs"
cp -r container "$context"
arch=$(docker version -f '{{.Server.Arch}}')
echo "image: building meta1 ($version)"
CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$context/build/out/meta1" .
sed -n '/^FROM scratch/,$s|--from=build /|build/|; /^FROM scratch/,$p' Dockerfile >"$context/Dockerfile"
chmod -R a+rX "$context" # whatever the umask is: the account of the image reads them
echo "image: assembling $tag"
# BuildKit is an add-on of the docker command that not every system has.
: "${DOCKER_BUILDKIT:=$(docker buildx version >/dev/null 2>&1 && echo 1 || echo 0)}"
export DOCKER_BUILDKIT
docker build -q --network none -t "$tag" "$context"
