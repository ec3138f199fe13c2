package watch

import (
	"net/netip"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

var (
	podToHost   = map[koratv1.PodToHost]policy.Action{koratv1.PodToHostAllow: policy.Allow, koratv1.PodToHostPass: policy.Pass}
	invalid     = map[koratv1.InvalidConnections]policy.Action{koratv1.InvalidAllow: policy.Allow}
	loops       = map[koratv1.Switch]policy.Action{koratv1.SwitchDisabled: policy.Pass}
	recheck     = map[koratv1.EstablishedConnections]bool{koratv1.ConnectionsRecheck: true}
	offload     = map[koratv1.TunnelOffload]desired.TunnelOffload{koratv1.OffloadEnabled: desired.OffloadOn, koratv1.OffloadDisabled: desired.OffloadOff}
	enabled     = map[koratv1.Switch]bool{koratv1.SwitchEnabled: true}
	hostTraffic = map[koratv1.HostTraffic]bool{koratv1.HostTrafficPreferred: true}
	insideNodes = map[koratv1.NATExclusion]bool{koratv1.ExcludePoolsAndNodes: true}
	protocols   = map[string]policy.Protocol{"": policy.TCP, "TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP}
)

// nodeConfiguration: one whose selector does not parse is for no node.
func nodeConfiguration(obj any) (string, event.Value) {
	o := obj.(*koratv1.NodeConfiguration)
	nodes, err := selector.Parse(o.Spec.NodeSelector)
	if err != nil {
		return o.Name, nil
	}
	s, nat := &o.Spec, &o.Spec.NATOutgoing
	v := &event.NodeConfiguration{
		Name: o.Name, Nodes: nodes,
		Backend: said(desired.Backend(s.Backend)), Flavour: said(desired.Flavour(s.IPTablesFlavour)),
		Marks: said(uint32(s.MarkMask)), MTU: said(int(s.MTU)),
		PodToHost: meaning(podToHost, s.PodToHost), Invalid: meaning(invalid, s.InvalidConnections),
		Recheck:    meaning(recheck, s.EstablishedConnections),
		FailsafeIn: failsafes(s.FailsafeInbound), FailsafeOut: failsafes(s.FailsafeOutbound),
		Loops: meaning(loops, s.ServiceLoopPrevention), DropRecords: meaning(enabled, s.DropRecords),
		ClampMSS: meaning(enabled, s.TCPMSSClamp), PodTunnels: meaning(enabled, s.PodTunnels), TunnelSources: nets(s.ExternalTunnelSources),
		TunnelOffload: meaning(offload, s.TunnelOffload), NodeCondition: meaning(enabled, s.NodeCondition),
	}
	v.Encryption = event.EncryptionConfiguration{
		Mode: encryptionMode(s.Encryption.Mode), Port4: said(uint16(s.Encryption.PortIPv4)), Port6: said(uint16(s.Encryption.PortIPv6)),
		Odd4: said(uint16(s.Encryption.Rotation.PortIPv4)), Odd6: said(uint16(s.Encryption.Rotation.PortIPv6)),
	}
	v.Encryption.Hosts = meaning(hostTraffic, s.Encryption.HostTraffic)
	if period := s.Encryption.Rotation.Period; period != nil {
		v.Encryption.Rotation = &period.Duration
	}
	v.Masquerade = event.MasqueradeConfiguration{InsideNodes: meaning(insideNodes, nat.Exclude), InsideNets: nets(nat.ExcludeNets)}
	if nat.Addresses != nil {
		to := []netip.Addr{}
		for _, a := range nat.Addresses {
			to = appendAddr(to, string(a))
		}
		v.Masquerade.To = &to
	}
	if r := nat.PortRange; r != nil {
		v.Masquerade.Ports = &ir.PortRange{First: uint16(r.First), Last: uint16(r.Last)}
	}
	return o.Name, v
}

// said returns nil for a value that an object leaves out.
func said[V comparable](v V) *V {
	if v == *new(V) {
		return nil
	}
	return &v
}

// meaning returns what a word means, nil for one that an object leaves out. One
// from the future means the zero value, which is the closed one of actions.
func meaning[W ~string, V any](words map[W]V, word W) *V {
	if word == "" {
		return nil
	}
	v := words[word]
	return &v
}

// failsafes: an empty list says that there are none.
func failsafes(list []koratv1.Failsafe) *[]desired.Failsafe {
	if list == nil {
		return nil
	}
	out := []desired.Failsafe{}
	for _, f := range list {
		x := desired.Failsafe{Protocol: protocols[f.Protocol], Port: uint16(f.Port)}
		if f.Net != "" {
			var err error
			if x.Net, err = netip.ParsePrefix(string(f.Net)); err != nil {
				continue // not to let in more than was meant
			}
		}
		if x.Protocol.HasPorts() {
			out = append(out, x)
		}
	}
	return &out
}

func nets(list []koratv1.Net) *[]netip.Prefix {
	if list == nil {
		return nil
	}
	out := []netip.Prefix{}
	for _, n := range list {
		if p, err := netip.ParsePrefix(string(n)); err == nil {
			out = append(out, p.Masked())
		}
	}
	return &out
}
