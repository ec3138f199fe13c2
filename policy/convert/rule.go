package convert

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// rules converts the rules of one direction. Each keeps its place: one that is
// not understood matches nothing if it allows or logs, and else denies everything.
func (c *own) rules(field string, d policy.Direction, list []v1.Rule) []policy.Rule {
	var out []policy.Rule
	for i := range list {
		out = append(out, c.rule(fmt.Sprintf("%s[%d]", field, i), d, &list[i]))
	}
	return out
}

func (c *own) rule(field string, d policy.Direction, r *v1.Rule) policy.Rule {
	c.effect = ruleDeniesAll
	before := len(c.problems)
	var out policy.Rule
	switch r.Action {
	case v1.ActionDeny:
	case v1.ActionAllow:
		out.Action, c.effect = policy.Allow, ruleDropped
	case v1.ActionLog:
		out.Action, c.effect = policy.Log, ruleDropped
	case v1.ActionPass:
		out.Action = policy.Pass
	default:
		c.add(field+".action", string(r.Action), "Allow, Deny, Log or Pass", c.effect)
	}
	c.protocols(field, r, &out)
	c.ends(field, d, r, &out)
	understood := len(c.problems) == before
	switch {
	case understood && (!c.closed || out.Action == policy.Deny):
		return out
	case understood || c.effect == ruleDropped:
		return policy.Rule{Action: policy.Allow, Peers: []policy.Peer{}}
	}
	return policy.Rule{Action: policy.Deny}
}

// protocols converts what a rule says about family, protocol, ports and messages.
func (c *own) protocols(field string, r *v1.Rule, out *policy.Rule) {
	switch r.IPVersion {
	case 0, 4, 6:
		out.IPVersion = uint8(r.IPVersion)
	default:
		c.add(field+".ipVersion", fmt.Sprint(r.IPVersion), "4 or 6", c.effect)
	}
	protocol := c.protocolOf(field+".protocol", r.Protocol)
	if r.Protocol != nil {
		out.Ports = []policy.Port{{Protocol: protocol}}
	}
	if r.NotProtocol != nil {
		out.NotPorts = append(out.NotPorts, policy.Port{Protocol: c.protocolOf(field+".notProtocol", r.NotProtocol)})
	}
	if (r.ICMP != nil || r.NotICMP != nil) && !protocol.HasMessages() {
		c.add(field+".protocol", protocol.String(), "ICMP or ICMPv6 beside icmp and notICMP", c.effect)
		return
	}
	if r.ICMP != nil {
		out.Ports = []policy.Port{{Protocol: protocol, Message: c.message(field+".icmp", r.ICMP)}}
	}
	if r.NotICMP != nil {
		out.NotPorts = append(out.NotPorts, policy.Port{Protocol: protocol, Message: c.message(field+".notICMP", r.NotICMP)})
	}
	c.ports(field+".destination.ports", protocol, r.Destination.Ports, &out.Ports)
	c.ports(field+".destination.notPorts", protocol, r.Destination.NotPorts, &out.NotPorts)
	c.ports(field+".source.ports", protocol, r.Source.Ports, &out.SrcPorts)
	c.ports(field+".source.notPorts", protocol, r.Source.NotPorts, &out.NotSrcPorts)
}

var protocolsByName = map[string]policy.Protocol{
	"TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP,
	"ICMP": policy.ICMP, "ICMPv6": policy.ICMPv6, "UDPLite": policy.UDPLite,
}

func (c *own) protocolOf(field string, p *intstr.IntOrString) policy.Protocol {
	if p == nil {
		return policy.AnyProtocol
	}
	if n, ok := protocolsByName[p.StrVal]; ok && p.Type == intstr.String {
		return n
	}
	if p.Type == intstr.Int && p.IntVal >= 1 && p.IntVal <= 255 {
		return policy.Protocol(p.IntVal)
	}
	c.add(field, p.String(), "TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255", c.effect)
	return policy.AnyProtocol
}

func (c *own) message(field string, m *v1.ICMPMatch) policy.Message {
	out := policy.Message{Compare: policy.MessageType, Type: uint8(m.Type)}
	if m.Type < 0 || m.Type > 254 {
		c.add(field+".type", fmt.Sprint(m.Type), "a number from 0 to 254", c.effect)
	}
	if m.Code != nil {
		out.Compare, out.Code = policy.MessageTypeAndCode, uint8(*m.Code)
		if *m.Code < 0 || *m.Code > 255 {
			c.add(field+".code", fmt.Sprint(*m.Code), "a number from 0 to 255", c.effect)
		}
	}
	return out
}

// ports converts a list of ports into out, in the place of what it says about
// the protocol only.
func (c *own) ports(field string, protocol policy.Protocol, list []intstr.IntOrString, out *[]policy.Port) {
	if len(list) == 0 {
		return
	}
	if !protocol.HasPorts() {
		c.add(field, protocol.String(), "protocol TCP, UDP or SCTP beside ports", c.effect)
		return
	}
	if !strings.HasSuffix(field, "notPorts") {
		*out = []policy.Port{}
	}
	for i := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if p, ok := c.port(at, protocol, &list[i]); ok {
			*out = append(*out, p)
		}
	}
}

// port converts a number, a range such as 8000:8999, or a name.
func (c *own) port(field string, protocol policy.Protocol, p *intstr.IntOrString) (policy.Port, bool) {
	if p.Type == intstr.Int {
		return c.portNumbers(field, protocol, p.IntVal, p.IntVal, c.effect)
	}
	first, last, isRange := strings.Cut(p.StrVal, ":")
	if !isRange {
		if n, err := strconv.ParseInt(p.StrVal, 10, 32); err == nil {
			return c.portNumbers(field, protocol, int32(n), int32(n), c.effect)
		}
		if p.StrVal == "" || strings.ContainsAny(p.StrVal, " -:") && strings.Trim(p.StrVal, "-0123456789") == "" {
			c.add(field, p.StrVal, "a number from 1 to 65535, a range such as 8000:8999 or the name of a port", c.effect)
			return policy.Port{}, false
		}
		return policy.Port{Protocol: protocol, Name: p.StrVal}, true
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil {
		c.add(field, p.StrVal, "a range such as 8000:8999", c.effect)
		return policy.Port{}, false
	}
	return c.portNumbers(field, protocol, int32(from), int32(to), c.effect)
}

// ends converts what a rule says about source and destination.
func (c *own) ends(field string, d policy.Direction, r *v1.Rule, out *policy.Rule) {
	source := c.end(field+".source", &r.Source, d == policy.Ingress && r.Source.Services != nil)
	destination := c.end(field+".destination", &r.Destination, d == policy.Egress && r.Destination.Services != nil)
	peer, self := source, destination
	if d == policy.Egress {
		peer, self = self, peer
	}
	// Where only addresses are told, names of ports are those of whoever has them.
	out.Peers = list(peer, policy.Scope{Things: policy.Pods | policy.HostEndpoints})
	out.Own = list(self, c.subject)
}

// list returns nil where nothing is said about an end.
func list(p policy.Peer, names policy.Scope) []policy.Peer {
	if p.Empty() {
		return nil
	}
	if p.Scope == nil {
		p.Names = &names
	}
	return []policy.Peer{p}
}

// end converts one end; the zero Peer means that nothing is said about it.
func (c *own) end(field string, e *v1.RuleEnd, services bool) policy.Peer {
	var p policy.Peer
	p.Nets = c.nets(field+".nets", e.Nets)
	p.Except = c.nets(field+".notNets", e.NotNets)
	if e.Services != nil {
		c.service(field+".services", e, services, &p)
	}
	if e.Selector+e.NotSelector+e.NamespaceSelector == "" && e.ServiceAccounts == nil {
		return p
	}
	where := c.scope(field, e.NamespaceSelector)
	if e.Selector+e.NamespaceSelector != "" || e.ServiceAccounts != nil {
		s := where
		s.Pods = selector.And(s.Pods, c.selector(field+".selector", e.Selector))
		if a := e.ServiceAccounts; a != nil {
			labels := c.selector(field+".serviceAccounts.selector", a.Selector)
			if len(a.Names) == 0 && a.Selector == "" {
				c.add(field+".serviceAccounts", "{}", "names, a selector or both", c.effect)
			}
			s.Pods, s.Things = selector.And(s.Pods, policy.Account(a.Names, labels)), s.Things&policy.Pods
			if s.Things == 0 {
				s = nobody() // what is global has no service account
			}
		}
		p.Scope = &s
	}
	if e.NotSelector != "" {
		where.Pods = selector.And(where.Pods, c.selector(field+".notSelector", e.NotSelector))
		p.NotScope = &where
	}
	return p
}

// service converts the service of an end, where it may stand.
func (c *own) service(field string, e *v1.RuleEnd, allowed bool, p *policy.Peer) {
	p.Service = policy.ServiceName{Namespace: e.Services.Namespace, Name: e.Services.Name}
	if p.Service.Namespace == "" {
		p.Service.Namespace = c.namespace
	}
	switch {
	case !allowed:
		c.add(field, p.Service.String(), "services as the source of an ingress rule or the destination of an egress rule only", c.effect)
	case p.Service.Name == "" || p.Service.Namespace == "":
		c.add(field, p.Service.String(), "the name of a service and its namespace", c.effect)
	case len(e.Nets)+len(e.NotNets) > 0 || e.Selector+e.NotSelector+e.NamespaceSelector != "" || e.ServiceAccounts != nil:
		c.add(field, p.Service.String(), "services alone, without nets, selectors or service accounts", c.effect)
	}
}

// scope returns where the selectors of an end look: everything in the namespaces
// that text selects.
func (c *own) scope(field, text string) policy.Scope {
	var s policy.Scope
	const namespaced, global = policy.Pods | policy.NetworkSets, policy.GlobalNetworkSets | policy.HostEndpoints
	switch {
	case text != "":
		namespaces, outside := c.namespaces(field+".namespaceSelector", text)
		if !namespaces.IsNone() {
			s.Things, s.Namespaces = namespaced, namespaces
		}
		if outside {
			s.Things |= global
		}
		if s.Things == 0 {
			s = nobody()
		}
	case c.namespace != "":
		s.Namespace, s.Things = c.namespace, namespaced
	default:
		s.Things = namespaced | global
	}
	return s
}

func (c *own) nets(field string, list []v1.Net) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range list {
		if n, ok := c.cidr(fmt.Sprintf("%s[%d]", field, i), string(text), c.effect); ok {
			out = append(out, n)
		}
	}
	return out
}

// namespaces reads a selector of namespaces, and whether it also selects what
// has none.
func (c *own) namespaces(field, text string) (*selector.Selector, bool) {
	s := c.selector(field, text)
	namespaces, global := s.Split()
	// Among labels, everything or global() is everything: the words tell more.
	return namespaces, global || s.IsAll() && strings.Contains(text, "global()")
}

// selector reads a selector. One that is none yields one that selects nothing.
func (c *own) selector(field, text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		c.add(field, text, "a selector, but at "+err.Error(), c.effect)
		return selector.Not(selector.All())
	}
	return s
}
