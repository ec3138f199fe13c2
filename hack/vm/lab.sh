#!/bin/bash
# lab.sh COMMAND [ARG...] runs a command that makes a lab, such as bin/demo or a test of
# e2e/suite, in the other kernel. Its API server runs beside the virtual machine, on this
# one, where it starts fifteen times as fast. What `make lab-build` leaves in bin/ has to
# be there.
#
#   VM_TIMEOUT  seconds until the machine is ended, 1800
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# Nothing else on this machine sees the API server, and it sees nothing else: the kernel
# has to be here before.
if [ "${VM_ALONE:-}" != 1 ]; then
	"$here"/kernel.sh > /dev/null
	exec env VM_ALONE=1 unshare --net -- "$here"/lab.sh "$@"
fi
ip link set lo up

VM_BESIDE=$(mktemp -d /tmp/korat-vm-lab.XXXXXX)
export VM_BESIDE VM_CPUS=2 VM_MEMORY=6144 VM_TIMEOUT=${VM_TIMEOUT:-1800} PATIENCE=8
api=
trap '[ -z "$api" ] || { kill "$api" && wait "$api"; } 2>/dev/null || true; rm -rf "$VM_BESIDE"' EXIT
trap 'exit 130' INT TERM
(
	until [ -e "$VM_BESIDE"/wanted ]; do sleep 0.1; done
	read -r addr services < "$VM_BESIDE"/wanted
	ip addr add "$addr" dev lo
	exec "$here"/../../bin/controlplane serve --dir "$VM_BESIDE"/controlplane --bind :: --advertise "$addr" --service-cidr "$services"
) > "$VM_BESIDE"/log 2>&1 &
api=$!

code=0
"$here"/run.sh bash "$here"/inside.sh "$@" || code=$?
[ $code = 0 ] || tail -n 20 "$VM_BESIDE"/log >&2
exit $code
