package calc_test

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/desired/desiredtest"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// state is what the engine has been told, all of it.
type state map[event.Key]event.Value

// all returns the things of one type by name.
func all[V event.Value](s state) map[string]V {
	out := map[string]V{}
	for k, v := range s {
		if v, ok := v.(V); ok {
			out[k.Name] = v
		}
	}
	return out
}

// oracle says what should be desired. It knows the rules but no history, no
// index and no order: every question is answered by asking everything. It is
// slow and meant to be obviously right.
type oracle struct {
	node  string
	state state
}

func (o oracle) world(heard event.Source) desiredtest.World {
	w := desiredtest.World{
		Endpoints: map[string]desired.Endpoint{},
		Hosts:     map[string]desired.HostEndpoint{},
		Programs:  map[ir.ProgramID]ir.Program{},
		Sets:      map[ir.SetID]map[ir.Member]struct{}{},
		Routes:    map[netip.Prefix]desired.Route{},
		Paths:     map[desired.PathKey]bgp.Path{},
		Policies:  map[policy.Key]desired.PolicyUse{},
	}
	if heard&event.API == 0 {
		return w
	}
	w.Complete = heard&event.CNI != 0
	w.Learned = w.Complete && heard&event.Neighbours != 0
	for iface, ep := range all[*event.Endpoint](o.state) {
		w.Endpoints[iface] = o.endpoint(iface, ep)
	}
	o.hosts(&w)
	o.settings(&w)
	for _, p := range all[*event.Policy](o.state) {
		use := o.use(p.Policy)
		if use.Pods+use.Hosts > 0 {
			w.Policies[p.Key] = use
			if !use.Staged {
				o.enforce(&w, p.Policy)
			}
		}
	}
	for _, p := range all[*event.Pool](o.state) {
		w.Pools = append(w.Pools, p.CIDR)
	}
	slices.SortFunc(w.Pools, netip.Prefix.Compare)
	w.Pools = slices.Compact(w.Pools)
	o.route(&w)
	o.tunnels(&w)
	o.announce(&w)
	o.offer(&w)
	return w
}

// answer is whether a policy selects an endpoint.
type answer int

const (
	no answer = iota
	yes
	maybe
)

// selects asks one policy about one endpoint.
func (o oracle) selects(p *policy.Policy, ep *event.Endpoint) answer {
	inside := o.inNamespace(p.Subject, ep.Handle.Namespace)
	pod := o.localPod(ep)
	switch {
	case !p.Hook.OnPods() || p.Subject.Kinds()&policy.Pods == 0:
		return no
	case inside == no:
		return no
	case pod == nil:
		return maybe
	case !p.Subject.Pods.Matches(o.podLabels(pod)):
		return no
	}
	return inside
}

// unsure reports whether the labels of the service account might change the
// answer of selects, and are unknown.
func (o oracle) unsure(p *policy.Policy, ep *event.Endpoint) bool {
	pod := o.localPod(ep)
	return pod != nil && pod.Account != "" && all[*event.ServiceAccount](o.state)[pod.Namespace+"/"+pod.Account] == nil &&
		p.Hook.OnPods() && p.Subject.Kinds()&policy.Pods != 0 &&
		policy.AsksAccount(p.Subject.Pods) && o.inNamespace(p.Subject, pod.Namespace) != no
}

func (o oracle) podLabels(pod *event.Pod) selector.Labels {
	if a := all[*event.ServiceAccount](o.state)[pod.Namespace+"/"+pod.Account]; a != nil {
		return policy.PodLabels(pod.Labels, pod.Account, a.Labels)
	}
	return policy.PodLabels(pod.Labels, pod.Account, nil)
}

func (o oracle) inNamespace(s policy.Scope, name string) answer {
	ns := all[*event.Namespace](o.state)[name]
	switch {
	case s.Namespace != "" && s.Namespace == name, s.Namespace == "" && s.Namespaces.IsAll():
		return yes
	case s.Namespace != "":
		return no
	case ns == nil:
		return maybe
	case s.Namespaces.Matches(ns.Labels):
		return yes
	}
	return no
}

func (o oracle) localPod(ep *event.Endpoint) *event.Pod {
	pod := all[*event.Pod](o.state)[ep.Handle.Namespace+"/"+ep.Handle.Pod]
	if pod != nil && (pod.Node != o.node || !ep.UID.May(pod.UID)) {
		return nil
	}
	return pod
}

func (o oracle) use(p *policy.Policy) desired.PolicyUse {
	use := desired.PolicyUse{Generation: p.Generation, Staged: p.Enforcement == policy.Staged}
	for _, ep := range all[*event.Endpoint](o.state) {
		if o.selects(p, ep) == yes {
			use.Pods++
		}
	}
	for _, h := range all[*event.HostEndpoint](o.state) {
		if h.Node == o.node && p.Subject.Kinds()&policy.HostEndpoints != 0 && p.Subject.Pods.Matches(h.Labels) {
			use.Hosts++
		}
	}
	return use
}

func (o oracle) enforce(w *desiredtest.World, p *policy.Policy) {
	for _, d := range policy.Directions {
		if p.Types&d == 0 {
			continue
		}
		prog := compile.Compile(p, d, compile.SetIDOf)
		w.Programs[prog.ID] = *prog
		for _, set := range compile.Sets(p, d) {
			w.Sets[compile.SetIDOf(set)] = o.members(set)
		}
	}
}

func (o oracle) members(set policy.Set) map[ir.Member]struct{} {
	members := map[ir.Member]struct{}{}
	add := func(nets []netip.Prefix, ports []policy.NamedPort) {
		for _, n := range nets {
			if !set.HasPorts() {
				members[ir.Member{Prefix: n}] = struct{}{}
				continue
			}
			for _, p := range ports {
				named := p.Name == set.Port.Name && (set.Port.Protocol == policy.AnyProtocol || set.Port.Protocol == p.Protocol)
				if named || set.Service.Name != "" {
					members[ir.Member{Prefix: n, Protocol: p.Protocol, Port: p.Port}] = struct{}{}
				}
			}
		}
	}
	if set.Service.Name != "" {
		for _, s := range all[*event.EndpointSlice](o.state) {
			if s.Service == set.Service {
				add(singles(s.Addrs), s.Ports)
			}
		}
		return members
	}
	is := func(kind policy.Things) bool { return set.Scope.Kinds()&kind != 0 }
	selects := set.Scope.Pods.Matches
	for _, pod := range all[*event.Pod](o.state) {
		if is(policy.Pods) && o.inNamespace(set.Scope, pod.Namespace) == yes && selects(o.podLabels(pod)) {
			add(singles(o.addrs(pod)), pod.Ports)
		}
	}
	for _, s := range all[*event.NetworkSet](o.state) {
		global := s.Namespace == "" && is(policy.GlobalNetworkSets)
		local := s.Namespace != "" && is(policy.NetworkSets) && o.inNamespace(set.Scope, s.Namespace) == yes
		if (global || local) && selects(s.Labels) {
			add(s.Nets, nil)
		}
	}
	for _, h := range all[*event.HostEndpoint](o.state) {
		if is(policy.HostEndpoints) && selects(h.Labels) {
			add(singles(h.Addrs), h.Ports)
		}
	}
	for _, n := range all[*event.Node](o.state) {
		if is(policy.Nodes) && selects(n.Labels) {
			add(singles(n.Addrs), nil)
			add(singles(n.Others), nil)
		}
	}
	return members
}

func singles(addrs []netip.Addr) (nets []netip.Prefix) {
	for _, a := range addrs {
		nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
	}
	return nets
}

// addrs: of a local pod, what its endpoints say goes before what its object says.
func (o oracle) addrs(pod *event.Pod) []netip.Addr {
	var addrs []netip.Addr
	for _, ep := range all[*event.Endpoint](o.state) {
		if o.localPod(ep) == pod {
			addrs = append(addrs, ep.Addrs...)
		}
	}
	if addrs == nil {
		return pod.Addrs
	}
	return addrs
}

func (o oracle) endpoint(iface string, ep *event.Endpoint) desired.Endpoint {
	out := desired.Endpoint{
		Interface: iface, Pod: ep.Handle.Namespace + "/" + ep.Handle.Pod, Sources: ep.Sources, Generation: ep.Generation, Rates: ep.Rates,
		Ingress: o.chain(ep, policy.Ingress), Egress: o.chain(ep, policy.Egress),
	}
	for _, a := range ep.Addrs {
		if o.holder(a) == iface {
			out.Addrs = append(out.Addrs, a)
		}
	}
	for a, to := range o.floating() {
		if to == iface {
			out.Floating = append(out.Floating, a)
		}
	}
	slices.SortFunc(out.Floating, netip.Addr.Compare)
	return out
}

func (o oracle) chain(ep *event.Endpoint, d policy.Direction) ir.Chain {
	var selected []*policy.Policy
	for _, p := range all[*event.Policy](o.state) {
		answer := o.selects(p.Policy, ep)
		if p.Enforcement == policy.Enforced && p.Types&d != 0 && (answer == maybe || o.unsure(p.Policy, ep)) {
			return ir.Chain{Default: policy.Deny}
		}
		if answer == yes {
			selected = append(selected, p.Policy)
		}
	}
	return o.ordered(selected, d, policy.Allow, nil)
}

func (o oracle) host(h *event.HostEndpoint, iface string) desired.HostEndpoint {
	chains := func(end policy.Action, pass *policy.Action, hooks ...policy.Hook) desired.Chains {
		var selected []*policy.Policy
		for _, p := range all[*event.Policy](o.state) {
			if slices.Contains(hooks, p.Hook) && p.Subject.Kinds()&policy.HostEndpoints != 0 && p.Subject.Pods.Matches(h.Labels) {
				selected = append(selected, p.Policy)
			}
		}
		return desired.Chains{Ingress: o.ordered(selected, policy.Ingress, end, pass), Egress: o.ordered(selected, policy.Egress, end, pass)}
	}
	pass := policy.Pass
	return desired.HostEndpoint{
		Name: h.Name, Interface: iface, Addrs: h.Addrs,
		Normal:    chains(policy.Deny, nil, policy.Normal, policy.NormalAndForward),
		Forward:   chains(policy.Allow, nil, policy.NormalAndForward),
		PreDNAT:   chains(policy.Allow, &pass, policy.PreDNAT),
		Untracked: chains(policy.Allow, &pass, policy.Untracked),
	}
}

// ordered makes a chain of the policies of one direction; end, if not nil, is
// how all tiers end.
func (o oracle) ordered(selected []*policy.Policy, d policy.Direction, byDefault policy.Action, end *policy.Action) ir.Chain {
	selected = slices.DeleteFunc(slices.Clone(selected), func(p *policy.Policy) bool { return p.Types&d == 0 })
	slices.SortFunc(selected, func(a, b *policy.Policy) int {
		x, y := o.tier(a.Tier), o.tier(b.Tier)
		return cmp.Or(cmp.Compare(x.Order, y.Order), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Order, b.Order),
			cmp.Compare(a.Key.Name, b.Key.Name), cmp.Compare(a.Key.Namespace, b.Key.Namespace))
	})
	tiers := func(of []*policy.Policy) (list []ir.Tier) {
		for _, name := range slices.Compact(names(of)) {
			t := ir.Tier{Name: name, End: o.tier(name).End}
			if end != nil {
				t.End = *end
			}
			for _, p := range of {
				if p.Tier == name {
					t.Programs = append(t.Programs, ir.ProgramID{Policy: p.Key, Direction: d})
				}
			}
			list = append(list, t)
		}
		return list
	}
	all := tiers(selected)
	enforced := slices.DeleteFunc(slices.Clone(selected), func(p *policy.Policy) bool { return p.Enforcement == policy.Staged })
	chain := ir.Chain{Default: byDefault, Tiers: tiers(enforced)}
	if len(enforced) < len(selected) {
		chain.Pending = all
	}
	return chain
}

// tier: three are what they are, an unknown one is the last and closed.
func (o oracle) tier(name string) policy.Tier {
	t := all[*event.Tier](o.state)[name]
	switch {
	case name == policy.AdminTier:
		return policy.Tier{Order: 1000, End: policy.Pass}
	case name == policy.BaselineTier:
		return policy.Tier{Order: 10_000_000, End: policy.Pass}
	case name == policy.DefaultTier:
		return policy.Tier{Order: 1_000_000, End: policy.Deny}
	case t == nil:
		return policy.Tier{Order: math.Inf(1), End: policy.Deny}
	}
	return t.Tier
}

func names(ps []*policy.Policy) (tiers []string) {
	for _, p := range ps {
		tiers = append(tiers, p.Tier)
	}
	return tiers
}

// holder returns the interface of the endpoint that holds a, "" for none.
func (o oracle) holder(a netip.Addr) string {
	eps := all[*event.Endpoint](o.state)
	var claims []string
	for iface, ep := range eps {
		if slices.Contains(ep.Addrs, a) {
			claims = append(claims, iface)
		}
	}
	if claims == nil {
		return ""
	}
	return slices.MinFunc(claims, func(x, y string) int {
		return cmp.Or(-cmp.Compare(eps[x].Generation, eps[y].Generation), cmp.Compare(x, y))
	})
}

// changes returns the events that lead from s to t, in the order of their keys.
func (s state) changes(t state) []event.Event {
	var evs []event.Event
	for k := range s {
		if t[k] == nil {
			evs = append(evs, event.Event{Key: k})
		}
	}
	for k, v := range t {
		if s[k] != v {
			evs = append(evs, event.Event{Key: k, Value: v})
		}
	}
	slices.SortFunc(evs, func(a, b event.Event) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.Name, b.Key.Name))
	})
	return evs
}

// put changes s by an event.
func (s state) put(ev event.Event) {
	if ev.Value == nil {
		delete(s, ev.Key)
	} else {
		s[ev.Key] = ev.Value
	}
}
