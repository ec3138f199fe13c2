#!/bin/bash
# test.sh runs the tests that need a kernel with IP in IP and WireGuard, all in one
# boot. They are compiled here: in the machine that takes fifteen times as long.
set -euo pipefail
cd "$(dirname "$0")"/../..
declare -A tests=([felix/pathmtu]='IPIP' [felix/kernel/tunnel]='IPIP|Several' [felix/kernel/wireguard]='Kernel|OnTheWire|Adopts|Begun|Change|WhatNodesSend')
bin=$(mktemp -d /tmp/korat-vm-tests.XXXXXX)
trap 'rm -rf "$bin"' EXIT
for p in "${!tests[@]}"; do
	go test -c -tags vm -o "$bin/$(basename "$p").test" "./$p"
done
{
	echo 'failed=0'
	for p in "${!tests[@]}"; do
		echo "cd $PWD/$p && $bin/$(basename "$p").test -test.v -test.run '${tests[$p]}' -test.timeout 800s || failed=1"
	done
	echo 'exit $failed'
} > "$bin"/all.sh
# Some two minutes on a machine that does nothing else.
VM_TIMEOUT=${VM_TIMEOUT:-900} hack/vm/run.sh bash "$bin"/all.sh
