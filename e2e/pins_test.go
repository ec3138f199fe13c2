package e2e

// The libraries of the design are pinned in go.mod and must build together, also
// those that nothing imports yet: a data plane that comes later must not find
// that it cannot be linked with what stands.
import (
	_ "github.com/coreos/go-iptables/iptables"
	_ "github.com/google/nftables"
	_ "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)
