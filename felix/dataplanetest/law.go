package dataplanetest

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// lawOf returns the node of which d says all that is desired, as policy/eval
// finds it.
func lawOf(d desired.Delta) *eval.Host {
	h := &eval.Host{
		Pods: map[string]*eval.Attachment{}, PodPrefix: desired.InterfacePrefix, Endpoints: map[string]*eval.HostChains{},
		Rules: d.Settings.Rules(), Evaluator: evaluatorOf(d),
	}
	for iface, ep := range d.Endpoints {
		if ep != nil {
			h.Pods[iface] = &eval.Attachment{Addrs: ep.Addrs, Sources: ep.Sources, Endpoint: eval.Endpoint{Ingress: ep.Ingress, Egress: ep.Egress}}
		}
	}
	for iface, ep := range d.HostEndpoints {
		if ep != nil {
			h.Endpoints[iface] = &eval.HostChains{
				Normal: eval.Endpoint(ep.Normal), Forward: eval.Endpoint(ep.Forward),
				PreDNAT: eval.Endpoint(ep.PreDNAT), Untracked: eval.Endpoint(ep.Untracked),
			}
		}
	}
	for m := range members(d, desired.ServicesSet) {
		h.Services = append(h.Services, m.Prefix)
	}
	return h
}

func members(d desired.Delta, id ir.SetID) map[ir.Member]struct{} {
	if d.Sets[id] == nil {
		return nil
	}
	return d.Sets[id].Add
}

func evaluatorOf(d desired.Delta) *eval.Evaluator {
	return &eval.Evaluator{
		Explain: true,
		Program: func(id ir.ProgramID) *ir.Program { return d.Programs[id] },
		InSet: func(id ir.SetID, a netip.Addr) bool {
			for m := range members(d, id) {
				if m.Prefix.Contains(a) {
					return true
				}
			}
			return false
		},
		InPortSet: func(id ir.SetID, a netip.Addr, p policy.Protocol, port uint16) bool {
			_, in := members(d, id)[ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: p, Port: port}]
			return in
		},
	}
}
