#!/bin/bash
# Builds the images that the cluster lab needs beside Korat's: into
# bin/cluster-images what every cluster has (pause, CoreDNS), and with the argument
# "suites" into bin/suite-images what the pods of upstream's tests run. With "daily"
# it is pause, and for tests of policy agnhost alone, in bin/daily-images. There is
# no registry: images have the names under which they are asked for, and nodes have
# them before anybody asks.
#
# The programs in the tests' images are this machine's own (busybox, curl, dig, nc
# ...), with their libraries; agnhost is built from the modules of Kubernetes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=bin/cluster-images bin=bin
mkdir -p "$out" bin/suite-images bin/daily-images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
arch=$(go env GOARCH)

# pack ARCHIVE IMAGE FLAGS...
pack() { "$bin/image" -out "$out/$1.tar" -name "$2" "${@:3}" "$arch=$work/$1"; }

mkdir -p "$work/pause" "$work/coredns" "$work/agnhost"
cp "$bin/pause" "$work/pause/"
pack pause registry.k8s.io/pause:3.10.1 -also registry.k8s.io/pause:3.10.2 -entrypoint /pause # of containerd and of the tests
if [ "${1:-}" = daily ]; then
	out=bin/daily-images
	cp "$bin/agnhost" "$work/agnhost/"
	pack agnhost registry.k8s.io/e2e-test-images/agnhost:2.63.0 -entrypoint /agnhost -command pause
	exit 0
fi
cp "$bin/dns" "$work/coredns/coredns"
pack coredns registry.k8s.io/coredns/coredns:lab -entrypoint /coredns
[ "${1:-}" = suites ] || exit 0
out=bin/suite-images

mkdir -p "$work/boom"
cp "$bin/regression-issue-74839" "$work/boom/" # answers with a packet out of the window
pack boom registry.k8s.io/e2e-test-images/regression-issue-74839:1.4 -entrypoint /regression-issue-74839

root=$work/agnhost
mkdir -p "$root"/{bin,usr/bin,usr/local/bin,tmp,var/tmp,etc,uploads,root}
chmod 1777 "$root/tmp" "$root/var/tmp"
for program in bash conntrack curl dig getent hostname ip ss wget; do
	cp -L "$(command -v "$program")" "$root/usr/bin/"
done
ln -s ../usr/bin/bash "$root/bin/bash"
# Not busybox's shell: that of busybox-static runs its own applets, whatever PATH finds.
ln -s ../usr/bin/bash "$root/bin/sh"
ln -s ../usr/bin/hostname "$root/bin/hostname"
# Not busybox's nc, which exits with 1 on "nc -u -w", nor its wget, which crashes.
cp /usr/bin/nc.openbsd "$root/bin/nc"
cp /bin/busybox "$root/bin/busybox"
for applet in $(/bin/busybox --list); do
	[ -e "$root/bin/$applet" ] || [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
for f in "$root"/usr/bin/* "$root/bin/nc" "$root/bin/busybox"; do
	ldd "$f" 2> /dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true
done | sort -u | while read -r library; do
	mkdir -p "$root$(dirname "$library")"
	cp -L "$library" "$root$library"
done
# getent loads these by name.
for library in /lib/*-linux-gnu/libnss_{files,dns}.so.2; do
	[ ! -e "$library" ] || cp -L "$library" "$root$(dirname "$library")/"
done
printf 'root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n' > "$root/etc/passwd"
printf 'root:x:0:\ngroup-defined-in-image:x:50000:user-defined-in-image\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
cp -r "$root" "$work/tools"
kubernetes=$(cd e2e/controlplane && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
install -m 644 "$kubernetes"/test/images/agnhost/porter/localhost.{crt,key} "$root/"
cp "$bin/agnhost" "$root/agnhost"
ln -s agnhost "$root/agnhost-2"
cp "$bin/dns" "$root/coredns"
pack agnhost registry.k8s.io/e2e-test-images/agnhost:2.63.0 -entrypoint /agnhost -command pause \
	-also registry.k8s.io/e2e-test-images/agnhost:2.45 # of network-policy-api
pack tools registry.k8s.io/e2e-test-images/busybox:1.37.0-1 -command /bin/sh \
	-also "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0 registry.k8s.io/build-image/distroless-iptables:v0.9.6"
