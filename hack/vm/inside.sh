#!/bin/bash
# inside.sh is the part of lab.sh inside of the virtual machine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
controlplane=$here/../../bin/controlplane
touch /var/tmp/controlplane
mount --bind "$controlplane" /var/tmp/controlplane
mount --bind "$here"/controlplane.sh "$controlplane"
socat UNIX-LISTEN:/var/tmp/api.sock,fork,backlog=64 TCP4:10.0.2.2:6443 2> /dev/null &
exec "$@"
