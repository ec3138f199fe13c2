# Korat. `make help` lists what can be done here.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# One set of flags for all: builds and tests then share what is compiled.
export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -trimpath

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# What the API server of the lab says it is; the modules it is built from.
KUBE    := v1.36.3
KUBE_LD := -s -w $(foreach p,k8s.io/component-base/version k8s.io/client-go/pkg/version,-X $(p).gitVersion=$(KUBE) -X $(p).gitMajor=1 -X $(p).gitMinor=36)

.DEFAULT_GOAL := help
.PHONY: test-vm demo-vm walks-vm help build lab-build cluster-build node-build specs-build cluster-up cluster-down cluster-test cluster-daily cluster-figures cluster-suite suites-build conformance conformance-policy images images-test deps demo demo-families test unit kernel e2e interop judge hostile rolling walks encryption churn lint generate check-generated fuzz opinion bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

# GoBGP is built with a few lines changed, of which hack/gobgp.patch tells. Without
# gRPC's pages for debugging (grpcnotrace) the linker knows what nothing calls, which is
# a quarter of the agent.
build: ## build korat, korat-cni, koratctl and the lab into bin/
	hack/gobgp.sh
	go build -tags grpcnotrace -modfile=bin/src/korat.mod -ldflags "$(LDFLAGS)" -o bin/ ./cmd/korat ./cmd/korat-cni ./cmd/koratctl ./e2e/cmd/...

lab-build: build ## also build the lab's control plane (Kubernetes, long the first time)
	@[ -x bin/controlplane ] || echo "building a Kubernetes control plane: some minutes the first time"
	cd e2e/controlplane && go build -ldflags "$(KUBE_LD)" -o ../../bin/controlplane .

# What a node runs: the module of the control plane with kubelets, two minutes more.
NODES ?= 2
node-build: build
	hack/install-deps.sh containerd runc
	cd e2e/controlplane && go build -tags node -ldflags "$(KUBE_LD)" -o ../../bin/kubernetes .
	cd hack/helm && go build -ldflags "-s -w" -o ../../bin/helm helm.sh/helm/v4/cmd/helm
	go build -ldflags "-s -w" -o bin/ ./hack/image ./e2e/cluster/pause
	VERSION=$(VERSION) OUT=bin/cluster-images hack/images.sh $$(go env GOARCH)

cluster-build: node-build ## build the cluster lab and its images (long the first time)
	cd e2e/dns && go build -ldflags "-s -w" -o ../../bin/dns .
	hack/cluster-images.sh

cluster-up: cluster-build ## a Kubernetes cluster with real kubelets and Korat on this machine (NODES=2, PROXY=nftables for another kube-proxy, BARE=1 without Korat)
	bin/cluster up --nodes $(NODES) --proxy-mode $(or $(PROXY),iptables)
	$(if $(BARE),,bin/cluster install --tag $(VERSION))
	@echo "export KUBECONFIG=$$(bin/cluster kubeconfig)"

cluster-down: ## end the cluster, and see that nothing is left of it
	bin/cluster down

suites-build: cluster-build ## also build what the pods of upstream's tests run
	hack/install-deps.sh bind9-dnsutils busybox netcat-openbsd wget
	cd e2e/controlplane && go build -ldflags "$(KUBE_LD)" -o ../../bin/ k8s.io/kubernetes/test/images/agnhost k8s.io/kubernetes/test/images/regression-issue-74839
	hack/cluster-images.sh suites

# Upstream's tests, their runner, and the program of their pods.
specs-build: node-build
	cd e2e/controlplane && go test -c -vet=off -ldflags "$(KUBE_LD)" -o ../../bin/e2e.test k8s.io/kubernetes/test/e2e
	cd e2e/controlplane && go build -ldflags "$(KUBE_LD)" -o ../../bin/ github.com/onsi/ginkgo/v2/ginkgo k8s.io/kubernetes/test/images/agnhost

conformance: suites-build specs-build ## upstream's end-to-end tests of sig-network on a dual-stack cluster (BACKEND=NFTables, PROXY=nftables, FOCUS=regexp; long)
	bin/cluster down --name conformance
	bin/cluster up --name conformance --topology dual-stack --nodes 3 --proxy-mode $(or $(PROXY),iptables) --images bin/cluster-images,bin/suite-images
	bin/cluster install --name conformance --tag $(VERSION) --backend "$(BACKEND)"
	bin/cluster conformance --name conformance $(if $(FOCUS),--focus '$(FOCUS)')
	bin/cluster down --name conformance

# The suite is that of the version in go.mod, whose kinds the cluster gets.
POLICY_API = $$(go list -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api)
conformance-policy: suites-build ## the tests of ClusterNetworkPolicy with both data planes, and their reports in docs/conformance (half an hour)
	go test -c -vet=off -o bin/policy.test sigs.k8s.io/network-policy-api/conformance
	bin/cluster down --name policy
	bin/cluster up --name policy --images bin/cluster-images,bin/suite-images
	KUBECONFIG=$$(bin/cluster kubeconfig --name policy) bin/kubernetes kubectl apply --server-side --filename $(POLICY_API)/config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml
	set -e; for backend in IPTables NFTables; do \
		bin/cluster install --name policy --tag $(VERSION) --backend $$backend; \
		bin/cluster policy-conformance --name policy --report docs/conformance/$$backend.yaml; \
	done
	bin/cluster down --name policy

cluster-test: cluster-build ## installation, upgrade, removal, takeover, encryption, nodes that die, on a cluster with kubelets (ten minutes, root; FROM=commit to upgrade from)
	hack/previous-image.sh $(FROM)
	go test -count=1 -timeout 40m ./e2e/cluster -skip Daily

cluster-daily: specs-build ## a part of it for every day: Helm installs Korat, upstream's tests judge policy, nothing is left (some minutes, root)
	hack/cluster-images.sh daily
	go test -count=1 -timeout 20m ./e2e/cluster -run Daily

cluster-figures: cluster-build ## policy in force, pods Ready, memory, installation, beside reference plugins (some minutes, root)
	bin/cluster down --name figures
	bin/cluster up --name figures
	bin/cluster install --name figures --tag $(VERSION)
	bin/cluster measure --name figures
	bin/cluster down --name figures
	bin/cluster measure install --name figures --tag $(VERSION)

cluster-suite: cluster-test cluster-daily conformance ## all of a real cluster: installation to removal, upstream's tests with both data planes, figures (root, long)
	$(MAKE) conformance BACKEND=NFTables FOCUS=Netpol
	$(MAKE) cluster-figures

images: ## Korat's image for amd64 and arm64 in bin/images, with bills of materials (ctr images import)
	VERSION=$(VERSION) hack/images.sh

images-test: ## build the images twice, compare them, and look at what is in them (root)
	hack/install-deps.sh containerd
	go test -tags images ./hack/image -v -count=1 -timeout 90m

deps: ## install the Debian packages that tests and demo use
	hack/install-deps.sh

demo: deps lab-build ## a routed cluster on this machine, checked step by step (KEEP=1 leaves it up, LAB=ipv6 or dual-stack has other addresses, BACKEND=NFTables another data plane, ENCAP=VXLAN wraps packets)
	KEEP=$(KEEP) LAB=$(LAB) BACKEND=$(BACKEND) ENCAP=$(ENCAP) bin/demo

demo-families: deps lab-build ## the demo with IPv4, with both families and with IPv6 alone
	for lab in default dual-stack ipv6; do LAB=$$lab bin/demo; done

test: deps lab-build lint unit kernel e2e ## the whole suite (needs root)

unit: ## pure tests: nothing but Go
	go test $$(go list ./... | grep -Ev '$(KERNEL)|/e2e')

# Packages whose tests make network namespaces or start routers.
KERNEL := felix/(kernel|remains|bandwidth|flow|iptables|nft|backend|netmon|pod|cniserver|apply)|bgp/(gobgp|bfd|guarded|child)|cmd/korat-cni
kernel: ## tests against the kernel and real routers, in namespaces of their own (root)
	hack/gobgp.sh
	go test -modfile=bin/src/korat.mod -p 1 $$(go list ./... | grep -E '$(KERNEL)')

e2e: ## the lab's scenarios (root)
	go test -p 1 -count=1 -timeout 20m $$(go list ./e2e/... | grep -v /e2e/cluster$$)
	cd e2e/controlplane && go test ./pki/...

lint: ## gofumpt, vet, staticcheck
	@test -z "$$(go tool gofumpt -l . | tee /dev/stderr)"
	go vet ./...
	go tool staticcheck ./...

generate: ## regenerate deep copies and CRDs
	hack/generate.sh

check-generated: generate ## fail when generated files are not committed
	git diff --exit-code -- api charts

test-vm: deps ## the tests that need another kernel, of Debian in QEMU without virtualisation: IP in IP and WireGuard (root, some minutes)
	hack/vm/test.sh

# VXLAN, and nothing at all, the kernel of this machine can do itself.
MODE   ?= IPIP
VMMODE = $(if $(filter WireGuard,$(MODE)),ENCRYPTION=Required,ENCAP=$(MODE))
demo-vm: deps lab-build ## the demo in that kernel (MODE=IPIP, IPIPCrossSubnet or WireGuard, SCENES=5 for the first five; root, many minutes)
	$(VMMODE) LAB=$(LAB) SCENES=$(SCENES) hack/vm/lab.sh bin/demo

walks-vm: deps lab-build ## WALKS random walks through the modes in that kernel, IPIP among them (root, many minutes)
	go test -c -o bin/suite.test ./e2e/suite
	cd e2e/suite && ../../hack/vm/lab.sh ../../bin/suite.test -test.run Walks -test.v -slower 8 -walks $(WALKS) -walk-seed $$RANDOM -walk-modes None,IPIP,IPIPCrossSubnet,VXLAN

interop: deps ## every cell of docs/bgp-interop.md: Korat with FRR, BIRD and GoBGP's daemon as top of rack and reflector (some minutes, root)
	cd $$(go list -m -f '{{.Dir}}' github.com/osrg/gobgp/v4) && go build -o $(CURDIR)/bin/ ./cmd/gobgpd ./cmd/gobgp
	go test ./e2e/interop -all -update -count=1 -timeout 30m

judge: deps ## both data planes against the evaluator: 2,000 random clusters and 200 kills each (slow, root)
	go test -p 1 ./felix/nft ./felix/iptables -run 'Law$$|Eval$$|Kill' -clusters 2000 -kills 200 -timeout 90m

hostile: deps ## neighbours send malformed and mutated BGP messages for ten minutes (root)
	hack/gobgp.sh
	go test -modfile=bin/src/korat.mod ./bgp/gobgp -run Hostile -hostile 10m -count=1 -timeout 20m

encryption: deps lab-build ## wires are captured while nodes encrypt, agents and processes are killed and keys change (some minutes, root)
	go test -tags encryption ./e2e/suite -run Clear -v -count=1 -timeout 20m

WALKS ?= 30
walks: deps lab-build ## the mode of the pools changes at random under traffic, in both families (WALKS=30; some twenty minutes, root)
	go test ./e2e/suite -run Walks -walks $(WALKS) -walk-seed $$RANDOM -topology dual-stack -v -count=1 -timeout 60m

rolling: deps lab-build ## restart agent and speaker of every node in every layout under 1,000 packets/s (some minutes, root)
	go test ./e2e/suite -run Item75 -rolling -v -count=1 -timeout 30m

CHURN ?= 15m
churn: deps lab-build ## pods come and go for 15 minutes while agents and the API server do (CHURN=15m)
	go test ./e2e/suite -run Churn -churn $(CHURN) -v -count=1 -timeout 60m

FUZZTIME ?= 60s
fuzz: ## run every fuzz test, FUZZTIME each, two at a time
	hack/fuzz.sh $(FUZZTIME)

opinion: ## compare policy/eval with a second reading over 100,000 random clusters (slow)
	go test ./policy/eval -run SecondOpinion -clusters 100000 -timeout 60m

bench: ## print the speed and memory figures beside their limits
	hack/bench.sh

clean: ## remove what was built
	rm -rf bin
