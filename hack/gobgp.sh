#!/bin/sh
# Makes bin/src/korat.mod, the module file that Korat's programs are built with
# (go build -modfile=bin/src/korat.mod): go.mod, but GoBGP is a copy of the module with
# hack/gobgp.patch applied, which says what for. Without it all works the same, with
# more memory and time.
#
# Of a GoBGP that the patch does not fit, this fails: look what became of its lines,
# measure (make bench), and change the patch or remove it.
set -eu
cd "$(dirname "$0")/.."

# Of a module that is not here yet, go list knows no directory.
go mod download github.com/osrg/gobgp/v4
source=$(go list -m -f '{{.Dir}}' github.com/osrg/gobgp/v4)
made=$(echo "$source" | cat - go.mod go.sum hack/gobgp.sh hack/gobgp.patch | sha256sum)
[ "$(cat bin/src/made 2> /dev/null)" != "$made" ] || exit 0

mkdir -p bin
work=$(mktemp -d bin/src.XXXXXX)
trap 'rm -rf "$work"' EXIT
cp -r "$source" "$work/gobgp"
chmod -R u+w "$work/gobgp"
find "$work/gobgp" -name '*_test.go' -delete
git apply --directory="$work/gobgp" hack/gobgp.patch
cp go.mod "$work/korat.mod"
cp go.sum "$work/korat.sum"
go mod edit -replace github.com/osrg/gobgp/v4=./bin/src/gobgp "$work/korat.mod"
echo "$made" > "$work/made"
rm -rf bin/src
mv "$work" bin/src
