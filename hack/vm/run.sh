#!/bin/bash
# run.sh COMMAND [ARG...] runs a command in a stock Debian kernel, which has what the
# kernel of this machine may lack: IP in IP, WireGuard and others. The kernel boots
# under QEMU, in software, with this machine's file system as its own; what the
# command writes is lost. Its output and exit code are those of the command. It works
# as `go test -exec hack/vm/run.sh`, at one boot a package.
#
#   VM_TIMEOUT  seconds until the machine is ended, 300 (exit code 124)
#   VM_MEMORY   MiB, 1536
#   VM_CPUS     how many processors it has, 1
#   VM_BESIDE   a directory that it sees as /var/tmp/beside, and may write; then it also
#               reaches what listens on 127.0.0.1 here, as 10.0.2.2
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
tree=$("$here"/kernel.sh)

run=$(mktemp -d /tmp/korat-vm.XXXXXX)
machine=
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null || true; rm -rf "$run"' EXIT
trap 'exit 130' INT TERM
cp "$here"/guest.sh "$run"/guest.sh
{
	export -p | grep -vE '^declare -x (SHLVL|PWD|OLDPWD|_)(=|$)' || true
	printf 'cd %q\n' "$PWD"
	printf '( %s )\n' "$(printf '%q ' "$@")"
} > "$run"/command
printf '%s\n' "$(realpath "$tree")/lib/modules" > "$run"/modules

qemu=(qemu-system-x86_64 -accel tcg,thread=multi -cpu Nehalem -M pc -smp "${VM_CPUS:-1}" -m "${VM_MEMORY:-1536}"
	-nodefaults -no-user-config -nographic -no-reboot
	-kernel "$tree"/vmlinux -initrd "$tree"/initrd.img -serial "file:$run/console"
	-append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off clocksource=hpet no_timer_check nowatchdog audit=0 apparmor=0 rcupdate.rcu_expedited=1 random.trust_cpu=on rundir=$run"
	-device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtconsole,chardev=out -device virtio-rng-pci)
share() {
	qemu+=(-fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap$3" -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}
share host / ,readonly=on
share run "$run" ""
if [ -n "${VM_BESIDE:-}" ]; then
	share beside "$VM_BESIDE" ""
	qemu+=(-netdev user,id=net -device virtio-net-pci,netdev=net)
	touch "$run"/beside
fi
code=0
timeout -k 5 "${VM_TIMEOUT:-300}" "${qemu[@]}" < /dev/null 2> "$run"/errors &
machine=$!
wait "$machine" || code=$?
machine=
[ ! -f "$run"/code ] || exit "$(cat "$run"/code)"
tail -n 30 "$run"/console "$run"/errors >&2 || true
[ "$code" != 124 ] || { echo "hack/vm: the machine was ended after ${VM_TIMEOUT:-300} seconds" >&2; exit 124; }
echo "hack/vm: the machine ended without an exit code (qemu says $code)" >&2
exit 125
