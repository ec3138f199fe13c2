package nft_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/nft"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// wall is a Firewall in a namespace of the test.
type wall struct {
	*nft.Firewall
	t    testing.TB
	host *kerneltest.Namespace
}

func newWall(t testing.TB, host *kerneltest.Namespace) *wall {
	t.Helper()
	w := &wall{t: t, host: host}
	host.Do(func() {
		var err error
		if w.Firewall, err = nft.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { w.Close() })
	return w
}

func (l *lane) firewall() *wall { return newWall(l.t, l.host) }

// apply makes the kernel as wanted.
func (w *wall) apply(d desired.Delta) error {
	w.Want(d)
	return w.Apply(w.t.Context())
}

// crowd is a node with so many pods, of which some are given, and so many policies
// in one tier. Each policy selects one of the pods, in turn, and lets in a set of
// addresses and a port.
func crowd(pods, policies int, given []*desired.Endpoint) desired.Delta {
	settings := desired.DefaultSettings()
	d := desired.Delta{
		Complete: true, Settings: &settings,
		Endpoints: map[string]*desired.Endpoint{}, Programs: map[ir.ProgramID]*ir.Program{},
		Sets: map[ir.SetID]*desired.SetChange{},
	}
	all := append([]*desired.Endpoint{}, given...)
	for i := len(given); i < pods; i++ {
		name := fmt.Sprint("p", i)
		addr := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		all = append(all, &desired.Endpoint{Interface: desired.HostInterface("crowd", name), Pod: "crowd/" + name, Addrs: []netip.Addr{addr}})
	}
	for i, e := range all {
		next := *e
		next.Egress.Default, next.Ingress.Default = policy.Allow, policy.Deny
		next.Ingress.Tiers = []ir.Tier{{Name: policy.DefaultTier, End: policy.Deny}}
		for n := i; n < max(policies, len(all)); n += len(all) {
			p := n % policies
			id := crowdProgram(p)
			next.Ingress.Tiers[0].Programs = append(next.Ingress.Tiers[0].Programs, id)
		}
		d.Endpoints[e.Interface] = &next
	}
	for p := range policies {
		id := crowdProgram(p)
		set := ir.SetID(fmt.Sprint("set", p%100))
		port := uint16(6001)
		if p >= 2*pods { // the others of the same pod match too, but the first decides
			port = 7000 + uint16(p%1000)
		}
		d.Programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{{
			Action: policy.Allow, Protocol: policy.UDP, SrcSets: []ir.SetID{set}, DstPorts: []ir.PortRange{{First: port, Last: port}},
		}}}
	}
	for s := range 100 {
		change := &desired.SetChange{Kind: ir.Addrs, Whole: true, Add: map[ir.Member]struct{}{}}
		for m := range 250 {
			change.Add[ir.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(m + 1)}), 32)}] = struct{}{}
		}
		d.Sets[ir.SetID(fmt.Sprint("set", s))] = change
	}
	return d
}

func crowdProgram(n int) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Namespace: "crowd", Name: fmt.Sprint("policy-", n)}, Direction: policy.Ingress}
}
