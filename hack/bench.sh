#!/bin/bash
# bench.sh prints speed and memory beside their limits. It asserts nothing:
# machines differ, so read the ratios, and compare runs on one machine.
set -eu -o pipefail
cd "$(dirname "$0")/.."

echo "machine: $(nproc) CPUs, $(uname -sr), $(go version | cut -d' ' -f3)"

echo
echo "engine: what one change costs with 250,000 pods and 10,000 policies, and everything at once"
go test -run '^$' -bench Change -benchtime 100x ./felix/calc | grep -E '^Benchmark'
go test -run '^$' -bench Load -benchtime 3x ./felix/calc | grep -E '^Benchmark'

echo
echo "a table of nf_tables, over netlink: 50,000 rules (beside nft -f), 100,000 members, one change, a restart"
go test -run '^$' -bench 'Load|Change|Restart' -benchtime 3x ./felix/kernel/nftables | grep -E '^Benchmark'
go test -run '^$' -bench One -benchtime 500x ./felix/kernel/nftables | grep -E '^Benchmark'

echo
echo "nf_tables: the way of a packet against plain routing (limits: open 1.16, new 1.32); changes with 10, 1,000 and 10,000 policies"
echo "(limits: p50 1, 2 and 4 ms, p99 5, 10 and 20 ms); 50,000 rules from nothing (1.5 s), found again (2 s), 10,000 members (0.5 s)"
go test -run '^$' -bench Path -benchtime 25x ./felix/nft | grep -E '^Benchmark'
go test -run '^$' -bench Change -benchtime 300x ./felix/nft | grep -E '^Benchmark'
go test -run '^$' -bench 'Load|Restart|Members' -benchtime 5x ./felix/nft | grep -E '^Benchmark'

echo
echo "from the API server's answer to a write of a policy until a packet meets it, with 10,000 policies on the node (limit: p99 100 ms)"
go test -run '^$' -bench Write -benchtime 200x -timeout 20m ./e2e/suite | grep -E '^Benchmark'

echo
echo "BGP into the kernel, beside BIRD and FRR: a node among 1,000 (limits: 1.2 s, 120 MB), 100,000 routes of one neighbour (twice BIRD's time),"
echo "a reflector with 300 clients of 10 routes (3 times BIRD's time, 150 MB)"
hack/gobgp.sh
go test -modfile=bin/src/korat.mod -run '^$' -bench 'Mesh|Learn|Reflector' -benchtime 1x ./bgp/gobgp | grep -E '^Benchmark'
echo "a node of 1,000 in each layout of sessions: the mesh, behind and as a reflector, below two routers"
go test -modfile=bin/src/korat.mod -run '^$' -bench Layout -benchtime 1x ./bgp/gobgp | grep -E '^Benchmark'

echo
echo "tunnels: all that leads to 1,000 nodes (limit: 1 s), one node more (5 ms)"
go test -run '^$' -bench 'Nodes|More' -benchtime 10x ./felix/kernel/tunnel | grep -E '^Benchmark'
echo "a VXLAN tunnel beside one made by hand and beside the plain way, as ratios of the best (limit: 0.97 of that by hand)"
go test -run '^$' -bench ByHand -benchtime 20x ./felix/kernel/tunnel | grep -E '^Benchmark'

echo
echo "agents at idle, 12 pods on 4 nodes (limit: 60 MB resident)"
lab="bin/lab --name bench"
trap '$lab down' EXIT
$lab down
$lab up > /dev/null
KUBECONFIG=$($lab kubeconfig)
export KUBECONFIG
for i in $(seq 12); do
	bin/controlplane kubectl run "bench$i" --image=none --restart=Never > /dev/null
done
bin/controlplane kubectl wait --for=condition=Ready pod --all --timeout=60s > /dev/null
sleep 60 # idle is what is measured: after the work of the start was collected
$lab status | sed -n 's/^\([^ ]*\) .* agent(\([0-9]*\)).*/\1 \2/p' | while read -r node pid; do
	awk -v n="$node" '/^VmRSS/ {printf "  %-4s %5.1f MB\n", n, $2/1024}' "/proc/$pid/status"
done

echo
echo "CNI beside the reference plugins (limits: ADD p50 0.40 and p99 1.0, DEL p50 0.20, ADDs at once 3.0)"
$lab kill-runner a1 # pods of the API server that the bench attaches itself
bin/controlplane kubectl create namespace bench > /dev/null
pods() { # KIND COUNT LABEL
	for i in $(seq 0 $(($2 - 1))); do
		printf -- '---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d, namespace: bench, labels: {bench: %s}}\nspec: {nodeName: a1, containers: [{name: c, image: none}]}\n' "$1" "$i" "$3"
	done
}
{
	pods bench-korat 102 open
	pods storm-korat 100 open
	pods early-closed 200 closed
	pods early-open 3 open
	pods early-prober 1 open | sed 's/early-prober-0/early-prober/'
	printf -- '---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: bench}\nspec: {podSelector: {matchLabels: {bench: closed}}, policyTypes: [Ingress]}\n'
} | bin/controlplane kubectl apply -f - > /dev/null
failed=0
for backend in IPTables NFTables; do # each part is told, whatever became of those before
	printf 'apiVersion: korat.dev/v1\nkind: NodeConfiguration\nmetadata: {name: default}\nspec: {backend: %s}\n' "$backend" |
		bin/controlplane kubectl apply -f - > /dev/null
	bin/controlplane kubectl wait nnet/a1 --for=jsonpath='{.status.backend}'="$backend" --timeout=30s || failed=1
	$lab exec a1 /opt/korat/bin/lab cni-bench || failed=1
	$lab exec a1 /opt/korat/bin/lab cni-bench --early --count 200 || failed=1 # limit: 0 of 10,000
done
exit $failed
