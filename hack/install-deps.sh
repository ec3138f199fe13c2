#!/bin/sh
# Installs the Debian packages that the tests and the demo use, and those named as
# arguments. With all of them there it does nothing and needs no network. Daemons
# run only in namespaces, as processes of the lab: their system services stay off.
set -eu
packages="bird2 conntrack containernetworking-plugins curl frr ipset iproute2 iptables iputils-ping nftables procps socat tcpdump traceroute $*"

missing=
for p in $packages; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "install-deps: these packages are missing, and only root can install them:$missing" >&2
	exit 1
fi

# A package must not start its daemon while it is being installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' > "$policy"
	chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# The lists may be missing, or older than what the mirror still has.
# shellcheck disable=SC2086 # $missing is a list of words
install() { apt-get install -qq -y --no-install-recommends $missing > /dev/null; }
# shellcheck disable=SC2086
apt-cache show $missing > /dev/null 2>&1 || apt-get update -qq
install || { apt-get update -qq && install; }
if [ -d /run/systemd/system ]; then
	for s in frr bird containerd; do systemctl disable --quiet "$s" 2>/dev/null || true; done
fi
