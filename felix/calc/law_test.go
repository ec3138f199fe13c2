package calc_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// lawful makes a random cluster in which nothing is in doubt and no address is
// shared, as the engine is told of it and as policy/eval is asked about it. All
// pods run here.
func (d dice) lawful() (*eval.Cluster, evs) {
	c := &eval.Cluster{
		Namespaces: map[string]selector.Labels{}, Accounts: map[policy.ServiceName]selector.Labels{}, Tiers: policy.Tiers{},
	}
	var told evs
	tell := func(name string, v event.Value) { told = append(told, event.Set(name, v)) }
	for i, ns := range []string{"a", "b", "c"} {
		c.Namespaces[ns] = d.labels(60)
		tell(ns, &event.Namespace{Name: ns, Labels: c.Namespaces[ns]})
		c.Accounts[policy.ServiceName{Namespace: ns, Name: "default"}] = d.labels(50)
		tell(ns+"/default", &event.ServiceAccount{Namespace: ns, Name: "default", Labels: c.Accounts[policy.ServiceName{Namespace: ns, Name: "default"}]})
		for k := range 3 {
			name, a := fmt.Sprint("p", k), netip.AddrFrom4([4]byte{10, 0, byte(i), byte(k)})
			p := eval.Pod{Namespace: ns, Name: name, Node: "me", Addrs: []netip.Addr{a}, Labels: d.labels(70), Account: "default", Ports: d.ports()}
			c.Pods = append(c.Pods, p)
			tell(ns+"/"+name, &event.Pod{Namespace: ns, Name: name, Node: "me", Labels: p.Labels, Account: p.Account, Ports: p.Ports})
			told = append(told, endpoint("kor"+ns+name, ns+"/"+name, 1, a.String()))
		}
	}
	s := state{}
	for range 12 {
		for _, thing := range []func() (string, event.Value){d.policy, d.networkSet, d.slice, d.host, d.tier} {
			name, v := thing()
			s.put(event.Set(name, v))
		}
	}
	for _, p := range all[*event.Policy](s) {
		c.Policies = append(c.Policies, p.Policy)
	}
	for _, n := range all[*event.NetworkSet](s) {
		c.NetworkSets = append(c.NetworkSets, n.NetworkSet)
	}
	for _, h := range all[*event.HostEndpoint](s) {
		c.HostEndpoints = append(c.HostEndpoints, h.HostEndpoint)
	}
	for name, t := range all[*event.Tier](s) {
		c.Tiers[name] = t.Tier
	}
	for _, slice := range all[*event.EndpointSlice](s) {
		service := eval.Service{ServiceName: slice.Service}
		for _, a := range slice.Addrs {
			service.Ends = append(service.Ends, eval.ServiceEnd{Addr: a}) // without a port that it serves
			for _, p := range slice.Ports {
				service.Ends = append(service.Ends, eval.ServiceEnd{Addr: a, Protocol: p.Protocol, Port: p.Port})
			}
		}
		c.Services = append(c.Services, service)
	}
	return c, append(told, state{}.changes(s)...)
}

// evaluator asks what the engine said.
func evaluator(w desiredtest.World) *eval.Evaluator {
	return &eval.Evaluator{
		Program: func(id ir.ProgramID) *ir.Program {
			if p, ok := w.Programs[id]; ok {
				return &p
			}
			return nil
		},
		InSet: func(id ir.SetID, a netip.Addr) bool {
			for m := range w.Sets[id] {
				if m.Prefix.Contains(a) {
					return true
				}
			}
			return false
		},
		InPortSet: func(id ir.SetID, a netip.Addr, protocol policy.Protocol, port uint16) bool {
			_, in := w.Sets[id][ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: protocol, Port: port}]
			return in
		},
	}
}

func TestWhatIsDesiredMeansWhatTheLawSays(t *testing.T) {
	verdicts := map[policy.Action]int{}
	for seed := range uint64(60) {
		d := newDice(seed, 7)
		c, told := d.lawful()
		r := ready(t, told...)
		law := evaluator(r.world)
		for range 60 {
			from, to := pick(d, c.Pods...), pick(d, c.Pods...)
			p := eval.Packet{
				Src: from.Addrs[0], Dst: to.Addrs[0], Protocol: pick(d, policy.TCP, policy.TCP, policy.UDP, policy.ICMP),
				SrcPort: 40000, DstPort: pick[uint16](d, 53, 80, 8080, 9),
			}
			if p.Src == p.Dst {
				continue
			}
			if !p.Protocol.HasPorts() {
				p.SrcPort, p.DstPort = 0, 0
			}
			path := eval.Path{From: theirs(r.world, from), To: theirs(r.world, to)}
			want, got := c.Verdict(p).Action, law.Path(path, p).Action
			if want != got {
				t.Fatalf("seed %d: %s/%s to %s/%s %+v: the law says %s, what is desired %s", seed, from.Namespace, from.Name, to.Namespace, to.Name, p, want, got)
			}
			verdicts[want]++
		}
	}
	if verdicts[policy.Allow] < 100 || verdicts[policy.Deny] < 100 {
		t.Errorf("verdicts are %v: too few of one kind to mean anything", verdicts)
	}
}

// theirs returns the chains of a pod's endpoint.
func theirs(w desiredtest.World, p eval.Pod) *eval.Endpoint {
	ep := w.Endpoints["kor"+p.Namespace+p.Name]
	return &eval.Endpoint{Ingress: ep.Ingress, Egress: ep.Egress}
}
