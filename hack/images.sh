#!/bin/sh
# Builds Korat's image into bin/images/korat.tar, an OCI archive for all given
# architectures (default amd64 and arm64), without a registry or a daemon:
#
#	VERSION=v1.0.0 hack/images.sh [ARCH...]
#
# Everything in it is a static program of ours, but iptables, which the iptables
# data plane calls; its files come from Debian's packages, of the same release for
# each architecture. The same commit and packages give the same digest.
#
# The first build for a foreign architecture compiles everything: eight minutes of
# processor time. Later ones link: half a minute for both. Labs build their own
# machine's alone. `make images-test` looks at what comes out.
set -eu
cd "$(dirname "$0")/.."
version=${VERSION:-$(git describe --tags --always --dirty)}
name=${IMAGE:-ghcr.io/koratnet/korat}:$version
out=${OUT:-bin/images}
[ $# -gt 0 ] || set -- amd64 arm64
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath"

mkdir -p "$out"
hack/gobgp.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for arch; do
	root=$work/$arch
	mkdir -p "$root/usr/bin" "$root/run" "$root/tmp" "$root/var" "$root/etc"
	chmod 1777 "$root/tmp"
	ln -s ../run "$root/var/run" # where containerd says that network namespaces are
	GOOS=linux GOARCH=$arch go build -tags grpcnotrace -modfile=bin/src/korat.mod -ldflags "-s -w -X main.version=$version" \
		-o "$root/usr/bin/" ./cmd/korat ./cmd/korat-cni ./cmd/koratctl
	hack/image/iptables.sh "$arch" "$root"
	set -- "$@" "$arch=$root"
	shift
done
go build -o "$work/image" ./hack/image
"$work/image" -name "$name" -out "$out/korat.tar" -version "$version" \
	-source https://github.com/koratnet/korat -entrypoint /usr/bin/korat "$@"
