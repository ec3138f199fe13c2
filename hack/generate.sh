#!/bin/sh
# generate.sh writes everything that is generated: from api/v1 the deepcopy
# functions beside the types, and the CRDs that the chart installs; from the chart
# the plain manifest, and what it makes of values of which none is the default. The
# tools are pinned, so a second run, here or elsewhere, changes nothing.
#
# The "dangerous type" is the floating point number in which policies and tiers
# have their order: there is always room between two of them.
set -eu

cd "$(dirname "$0")/.."

crds=charts/korat/crds

# A kind that was removed must not leave its CRD behind.
rm -f "$crds"/korat.dev_*.yaml

go tool controller-gen \
	object \
	crd:crdVersions=v1,allowDangerousTypes=true \
	paths=./api/... \
	output:crd:dir="$crds"

# controller-gen has no marker for the bounds of a number that may be a name
# instead. A rule could hold them, but older API servers take the name for
# as long as a whole request and find every such rule too dear.
bounds() { # PATTERN MAXIMUM
	sed -i "s/^\( *\)pattern: $1.*/\1maximum: $2\n\1minimum: 1\n&/" "$crds"/*policies.yaml
}
bounds '^(TCP|' 255
bounds '^(\[1-9\]' 65535

(cd hack/helm && go build -ldflags "-s -w" -o ../../bin/helm helm.sh/helm/v4/cmd/helm)
bin/helm template korat charts/korat --namespace kube-system >charts/korat.yaml
# With another value for all that can have one, for reviewers: what a change makes of it.
bin/helm template korat charts/korat --namespace korat-system --values charts/testdata/everything.values.yaml >charts/testdata/everything.yaml
