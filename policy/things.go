package policy

import (
	"net/netip"

	"github.com/koratnet/korat/policy/selector"
)

// NamedPort is a port to which a pod or a host endpoint gives a name. One name
// may stand for several ports.
type NamedPort struct {
	Name     string
	Protocol Protocol // one that HasPorts
	Port     uint16
}

// Is reports whether n is what a PortName means.
func (n NamedPort) Is(name PortName) bool {
	return n.Name == name.Name && (name.Protocol == AnyProtocol || name.Protocol == n.Protocol)
}

// NetworkSet gives labels to addresses; without a Namespace it is global.
type NetworkSet struct {
	Namespace, Name string
	Labels          selector.Labels
	Nets            []netip.Prefix // masked; they may overlap
}

// HostEndpoint is an interface of a node, or all of them, to which policies apply.
type HostEndpoint struct {
	Name      string
	Node      string
	Interface string // "*": all but those of pods; empty: that which has one of Addrs
	Addrs     []netip.Addr
	Labels    selector.Labels
	Ports     []NamedPort
}
