#!/bin/bash
# controlplane.sh takes the place of bin/controlplane in the virtual machine, where the
# real one would take minutes to start. That one runs beside the machine: lab.sh starts
# it there as this one is asked to, and this one passes connections on to it.
set -euo pipefail
beside=/var/tmp/beside
[ "$1" = serve ] || exec /var/tmp/controlplane "$@"
while [ $# -gt 0 ]; do
	case $1 in
	--dir) dir=$2 ;;
	--bind) addr=$2 ;;
	--service-cidr) services=$2 ;;
	esac
	shift
done
mkdir -p "$dir"
rm -f "$dir"/ready
echo "$addr $services" > $beside/wanted.new
mv $beside/wanted.new $beside/wanted
until [ -e $beside/controlplane/ready ]; do sleep 0.1; done
cp -r $beside/controlplane/pki $beside/controlplane/*.kubeconfig "$dir"
case $addr in
*:*) listen="TCP6-LISTEN:6443,bind=[$addr]" ;;
*) listen="TCP4-LISTEN:6443,bind=$addr" ;;
esac
setsid socat "$listen,fork,reuseaddr,backlog=64" UNIX-CONNECT:/var/tmp/api.sock 2> /dev/null &
door=$!
trap 'rm -f "$dir"/ready; kill -- -$door; exit 0' TERM INT
touch "$dir"/ready
wait $door
