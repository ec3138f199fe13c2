#!/bin/bash
# fuzz.sh runs every fuzz test of the repository for a TIME such as 60s, JOBS at
# once with one worker each. It fails when one of them does, and says with what.
# PACKAGES limits it to some. The first build takes minutes: all that is fuzzed is
# compiled anew with counters.
set -eu -o pipefail
cd "$(dirname "$0")/.."
export TIME=${1:-60s}
BIN=$(mktemp -d)
CORPUS=$(go env GOCACHE)/fuzz/$(go list -m)
export BIN CORPUS
trap 'rm -rf "$BIN"' EXIT

one() { # PACKAGE FUNCTION
	local log
	log=$(cd "$1" && "$BIN/${1//\//-}" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$TIME" -test.parallel 1 \
		-test.fuzzcachedir "$CORPUS/$1" 2>&1) || {
		echo "$log"
		return 1
	}
	echo "$1 $2: $(grep -o 'execs: [0-9]*' <<<"$log" | tail -1)"
}
export -f one

tests=$(grep -r --include='*_test.go' '^func Fuzz' ${PACKAGES:-*} |
	sed -n 's|^\(.*\)/[^/]*:func \(Fuzz[A-Za-z0-9]*\)(.*|\1 \2|p' | sort)
for package in $(cut -d' ' -f1 <<<"$tests" | uniq); do
	go test -c -fuzz . -o "$BIN/${package//\//-}" "./$package"
done
xargs -P "${JOBS:-2}" -n 2 bash -c 'one "$@"' one <<<"$tests"
