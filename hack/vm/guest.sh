#!/bin/bash
# The rest of the way up, on the host's file system: it runs the command and ends the
# machine.
run=$1
export PATH=$PATH:/usr/sbin:/sbin HOME=${HOME:-/root}
exec > /dev/hvc0 2>&1 < /dev/null
busybox stty raw -echo < /dev/hvc0
ip link set lo up
# Machines of the lab have layers of their own, which cannot lie upon that of the root.
mkdir -p /var/tmp/korat-lab
mount -t tmpfs -o size=75% tmp /var/tmp/korat-lab
if [ -e "$run"/beside ]; then
	mkdir -p /var/tmp/beside
	mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none beside /var/tmp/beside
	modprobe virtio_net
	ip addr add 10.0.2.15/24 dev eth0
	ip link set eth0 up
fi
(
	# shellcheck disable=SC1091 # written by run.sh
	. "$run"/command
)
echo $? > "$run"/code.new
mv "$run"/code.new "$run"/code
exec busybox poweroff -f
