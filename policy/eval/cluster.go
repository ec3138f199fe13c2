package eval

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

// Cluster is a small world to ask: who runs where with which labels, and which
// policies there are. It is worked out anew for every question.
type Cluster struct {
	Namespaces    map[string]selector.Labels
	Accounts      map[policy.ServiceName]selector.Labels // service accounts, by namespace and name
	Pods          []Pod
	Nodes         []Node // only needed for traffic from nodes, and rules about nodes
	NetworkSets   []policy.NetworkSet
	HostEndpoints []policy.HostEndpoint
	Rules         HostRules      // of every node
	ServiceNets   []netip.Prefix // addresses of services that are announced
	Services      []Service
	Policies      []*policy.Policy
	Tiers         policy.Tiers // nil: those that exist without an object
	Explain       bool         // as Evaluator.Explain
}

// Pod is a pod that is not on the host network.
type Pod struct {
	Namespace, Name string
	Node            string
	Addrs           []netip.Addr
	Labels          selector.Labels
	Account         string // its service account
	Ports           []policy.NamedPort
}

// Node is a node with its own addresses.
type Node struct {
	Name   string
	Addrs  []netip.Addr
	Labels selector.Labels
}

// Service is a Service of Kubernetes with its endpoints, ready or not.
type Service struct {
	policy.ServiceName
	Ends []ServiceEnd
}

// ServiceEnd is where a Service leads to.
type ServiceEnd struct {
	Addr     netip.Addr
	Protocol policy.Protocol
	Port     uint16
}

// Verdict answers whether packet p gets through. Its addresses say who the ends
// are: pods, nodes or the world outside.
func (c *Cluster) Verdict(p Packet) Verdict {
	everything := func(netip.Addr) []thing { return c.things() }
	return c.verdict(p, c.evaluator(everything), c.podAt, c.endpoint)
}

func (c *Cluster) verdict(p Packet, e *Evaluator, podAt func(netip.Addr) *Pod, endpoint func(*Pod) *Endpoint) Verdict {
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	from, to := podAt(p.Src), podAt(p.Dst)
	path := Path{From: endpoint(from), To: endpoint(to)}
	if from != nil && from == to {
		path.To = path.From
	}
	if to != nil && to.Node != "" {
		path.FromOwnHost = slices.ContainsFunc(c.Nodes, func(n Node) bool {
			return n.Name == to.Node && slices.Contains(n.Addrs, p.Src)
		})
	}
	v := e.Path(path, p)
	v.Hosts = c.crossings(e, p, from, to)
	if slices.ContainsFunc(v.Hosts, Step.denies) {
		v.Action = policy.Deny
	}
	return v
}

// Pod returns the pod of that name, or nil.
func (c *Cluster) Pod(namespace, name string) *Pod {
	return c.find(func(p *Pod) bool { return p.Namespace == namespace && p.Name == name })
}

// Selects reports whether a scope selects pod p.
func (c *Cluster) Selects(s policy.Scope, p *Pod) bool { return c.selects(s, c.podThing(p)) }

func (c *Cluster) podAt(a netip.Addr) *Pod {
	return c.find(func(p *Pod) bool { return slices.Contains(p.Addrs, a) })
}

func (c *Cluster) find(is func(*Pod) bool) *Pod {
	for i := range c.Pods {
		if is(&c.Pods[i]) {
			return &c.Pods[i]
		}
	}
	return nil
}

// endpoint returns the chains of a pod.
func (c *Cluster) endpoint(p *Pod) *Endpoint {
	if p == nil {
		return nil
	}
	var active []*policy.Policy
	for _, pol := range c.Policies {
		if c.selects(pol.Subject, c.podThing(p)) {
			active = append(active, pol)
		}
	}
	slices.SortFunc(active, c.Tiers.Compare)
	return &Endpoint{
		Ingress: compile.Chain(active, policy.Ingress, c.Tiers),
		Egress:  compile.Chain(active, policy.Egress, c.Tiers),
	}
}

// evaluator compiles all policies, and answers for sets by asking each of the
// things that may have an address.
func (c *Cluster) evaluator(thingsAt func(netip.Addr) []thing) *Evaluator {
	programs := map[ir.ProgramID]*ir.Program{}
	sets := map[ir.SetID]policy.Set{}
	for _, p := range c.Policies {
		for _, d := range policy.Directions {
			prog := compile.Compile(p, d, func(s policy.Set) ir.SetID {
				id := compile.SetIDOf(s)
				sets[id] = s
				return id
			})
			programs[prog.ID] = prog
		}
	}
	return &Evaluator{
		Explain: c.Explain,
		Program: func(id ir.ProgramID) *ir.Program { return programs[id] },
		SetText: func(id ir.SetID) string { return sets[id].String() },
		InSet: func(id ir.SetID, a netip.Addr) bool {
			s, ok := sets[id]
			return ok && c.has(s, a, thingsAt(a))
		},
		InPortSet: func(id ir.SetID, a netip.Addr, protocol policy.Protocol, port uint16) bool {
			s, ok := sets[id]
			return ok && c.hasPort(s, a, protocol, port, thingsAt(a))
		},
	}
}
