#!/bin/busybox sh
# The first process of the machine: its root is the host's file system, with a layer
# in memory for what is written.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for w in $(cat /proc/cmdline); do
	case $w in rundir=*) run=${w#rundir=} ;; esac
done
for m in /mods/*.ko; do insmod "$m"; done
share() {
	mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" || { echo "mount of $1 failed"; poweroff -f; }
}
share host /lower ro,cache=loose
mount -t tmpfs -o size=75% tmpfs /rw
mkdir /rw/up /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/up,workdir=/rw/work overlay /root || { echo "overlay failed"; poweroff -f; }
r=/root
mkdir -p $r/lib/modules "$r$run" $r/run $r/proc $r/sys $r/dev
share run "$r$run" cache=none
mount -o bind "$r$(cat "$r$run"/modules)" $r/lib/modules
mount -t tmpfs run $r/run
mkdir -p $r/run/netns $r/run/lock $r/tmp
for d in proc sys dev; do mount --move /$d $r/$d; done
mkdir -p $r/dev/pts $r/dev/shm
mount -t devpts devpts $r/dev/pts
mount -t tmpfs shm $r/dev/shm
ln -sf /proc/self/fd $r/dev/fd
for s in "0 stdin" "1 stdout" "2 stderr"; do ln -sf "fd/${s% *}" "$r/dev/${s#* }"; done
mount -t cgroup2 none $r/sys/fs/cgroup
exec switch_root $r /bin/bash "$run"/guest.sh "$run"
