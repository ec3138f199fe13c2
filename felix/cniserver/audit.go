package cniserver

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/cniserver/audit"
)

// Audit returns the books of the node: what the journal and what the kernel says.
func (s *Server) Audit() (audit.Node, error) {
	wired, err := s.Wirer.Wired()
	if err != nil {
		return audit.Node{}, err
	}
	state := s.Journal.State()
	n := audit.Node{
		Node: state.Node, Journal: state.ID,
		Blocks: slices.SortedFunc(maps.Keys(state.Blocks), netip.Prefix.Compare), Attachments: []audit.Attachment{}, Interfaces: []audit.Interface{},
	}
	for h, at := range state.Attachments {
		n.Attachments = append(n.Attachments, audit.Attachment{Pod: h.PodName(), Sandbox: h.Sandbox, Interface: at.HostInterface, Addrs: at.Addrs, Tunnel: h.OfTunnel()})
	}
	for _, w := range wired {
		n.Interfaces = append(n.Interfaces, audit.Interface{Name: w.HostInterface, Addrs: w.Addrs})
	}
	slices.SortFunc(n.Attachments, func(a, b audit.Attachment) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Sandbox, b.Sandbox))
	})
	slices.SortFunc(n.Interfaces, func(a, b audit.Interface) int { return cmp.Compare(a.Name, b.Name) })
	return n, nil
}
