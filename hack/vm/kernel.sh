#!/bin/bash
# kernel.sh fetches the kernel of Debian that apt offers, unless it is there already,
# makes it bootable without a disk, and prints where it is.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/korat/vm
mkdir -p "$cache"
exec 9> "$cache"/lock
flock 9
export PATH=$PATH:/usr/sbin:/sbin
"$(dirname "$0")"/../install-deps.sh qemu-system-x86 busybox-static kmod cpio xz-utils python3 >&2

# What of ours is packed with the kernel is part of the name.
tree=$cache/$(cat "$(dirname "$0")"/init.sh "$0" | sha256sum | cut -c1-16)
image() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ {print $2; exit}'; }
if [ ! -e "$tree"/ok ]; then
	package=$(image)
	[ -n "$package" ] || { apt-get update -qq >&2; package=$(image); }
	[ -n "$package" ] || { echo "hack/vm: apt has no linux-image-amd64" >&2; exit 125; }
	new=$(mktemp -d "$cache"/new.XXXXXX)
	(
		cd "$new"
		apt-get download -qq "$package" >&2 || { apt-get update -qq >&2; apt-get download -qq "$package" >&2; }
		dpkg-deb -x "$package"_*.deb .
		rm "$package"_*.deb
	)
	version=$(basename "$new"/lib/modules/*)
	depmod -b "$new" "$version"
	# The kernel inside of vmlinuz: to unpack it here costs a second, in the machine five.
	python3 - "$new/boot/vmlinuz-$version" "$new/vmlinux" <<'PY'
import struct, subprocess, sys
d = open(sys.argv[1], 'rb').read()
offset, length = struct.unpack('<II', d[0x248:0x250])
begin = (d[0x1f1] + 1) * 512 + offset
packed = d[begin:begin + length]
tools = {b'\xfd7': ['xz', '-dc', '--single-stream'], b'\x02!': ['lz4', '-dc'], b'(\xb5': ['zstd', '-dc'], b'\x1f\x8b': ['gzip', '-dc']}
out = subprocess.run(tools[packed[:2]], input=packed[:-4], stdout=subprocess.PIPE).stdout
assert out[:4] == b'\x7fELF', 'no kernel inside'
open(sys.argv[2], 'wb').write(out)
PY
	root=$(mktemp -d)
	mkdir -p "$root"/{bin,proc,sys,dev,lower,rw,root,mods}
	cp "$(command -v busybox)" "$root"/bin/busybox
	cp "$(dirname "$0")"/init.sh "$root"/init
	chmod +x "$root"/init
	order=10
	for m in virtio_pci virtio_console 9p 9pnet_virtio overlay; do
		modprobe -d "$new" -S "$version" -D "$m" 2>/dev/null || true
	done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r module; do
		target=$root/mods/$order-$(basename "${module%.xz}")
		case $module in *.xz) xz -dc "$module" > "$target" ;; *) cp "$module" "$target" ;; esac
		order=$((order + 1))
	done
	(cd "$root" && find . | cpio -o -H newc --quiet) > "$new"/initrd.img
	rm -rf "$root" "$tree"
	touch "$new"/ok
	mv "$new" "$tree"
fi
echo "$tree"
