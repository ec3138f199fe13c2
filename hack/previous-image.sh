#!/bin/sh
# Builds Korat's image as it was at a commit, by default the one before this, into
# bin/previous-image: tests upgrade from it.
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse --verify --short "${1:-HEAD~1}^{commit}")
out=$PWD/bin/previous-image
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive "$commit" | tar -x -C "$work"
VERSION=$commit-previous OUT=$out "$work/hack/images.sh" "$(go env GOARCH)"
