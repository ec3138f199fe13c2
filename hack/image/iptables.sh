#!/bin/sh
# iptables.sh ARCH ROOT: puts Debian's iptables, both flavours, and the libraries
# that they need below ROOT, and lists the packages for the bill of materials.
# Packages are fetched and unpacked, not installed, so any architecture will do.
set -eu
arch=$1 root=$2
packages="iptables libc6 libip4tc2 libip6tc2 libmnl0 libnftnl11 libxtables12"

cache=${DEB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/korat-debs}/$arch
mkdir -p "$cache/state/lists/partial" "$cache/cache/archives/partial" "$cache/debs"
: > "$cache/state/status" # as if nothing were installed
apt() {
	apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures::="$arch" \
		-o Dir::State="$cache/state" -o Dir::State::status="$cache/state/status" \
		-o Dir::Cache="$cache/cache" -o APT::Sandbox::User=root "$@"
}
for p in $packages; do
	ls "$cache/debs/${p}_"*.deb > /dev/null 2>&1 && continue
	[ -n "${updated:-}" ] || apt update
	updated=1
	(cd "$cache/debs" && apt download "$p")
done

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$root/usr/sbin" "$root/usr/share/sbom"
for p in $packages; do
	dpkg-deb -x "$cache/debs/${p}_"*.deb "$tree"
	# shellcheck disable=SC2016 # the fields are dpkg's
	dpkg-deb -W --showformat '${Package} ${Version} ${Architecture}\n' "$cache/debs/${p}_"*.deb
done > "$root/usr/share/sbom/packages"

cp "$tree"/usr/sbin/xtables-*-multi "$root/usr/sbin/"
for family in iptables ip6tables; do
	for flavour in nft legacy; do
		for what in "" -restore -save; do
			ln -s "xtables-$flavour-multi" "$root/usr/sbin/$family-$flavour$what"
		done
	done
	ln -s xtables-nft-multi "$root/usr/sbin/$family" # when nothing tells which one the node uses
done
for dir in "$tree"/lib "$tree"/lib64 "$tree"/usr/lib; do
	[ -d "$dir" ] || continue
	(cd "$tree" && find "${dir#"$tree/"}" \( -name 'ld-linux*' -o -name 'libc.so.6' -o -name 'libm.so.6' -o -name 'libip[46]tc.so.2*' -o -name 'libmnl.so.0*' \
		-o -name 'libnftnl.so.11*' -o -name 'libxtables.so.12*' -o -path '*/xtables/libip*.so' -o -path '*/xtables/libxt_*.so' \)) |
		grep -v libxt_connlabel | # needs one more library, and nobody has such rules
		while read -r f; do
			mkdir -p "$root/$(dirname "$f")"
			cp -P "$tree/$f" "$root/$f"
		done
done
