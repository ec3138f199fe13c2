// Package explain answers whether one thing may talk to another, and why. The
// answer is policy/eval's; this package finds who is meant and puts it in words.
package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// End is one end of a connection.
type End struct {
	Text    string     `json:"-"` // as it was asked for
	Pod     string     `json:"pod,omitempty"`
	Node    string     `json:"node,omitempty"` // it is this node, or a pod on its network
	Address netip.Addr `json:"address"`
	MadeUp  bool       `json:"madeUp,omitempty"` // no object names the address

	addrs []netip.Addr
	ports []policy.NamedPort
}

// String returns "pod shop/web (10.244.0.1)".
func (e End) String() string {
	address := e.Address.String()
	if e.MadeUp {
		address += ", made up"
	}
	switch {
	case e.Pod != "" && e.Node != "":
		return fmt.Sprintf("pod %s, on the network of node %s (%s)", e.Pod, e.Node, address)
	case e.Pod != "":
		return fmt.Sprintf("pod %s (%s)", e.Pod, address)
	case e.Node != "":
		return fmt.Sprintf("node %s (%s)", e.Node, address)
	}
	return address
}

// Family is the address family to ask about.
type Family int

// AnyFamily is the first of which both ends have an address.
const AnyFamily Family = 0

// Question is what is asked, with its ends found.
type Question struct {
	Source, Destination End
	Packet              eval.Packet
}

// Parse understands SRC and DST:PORT[/PROTO] in a world.
func Parse(w *world.World, src, dst string, family Family) (Question, error) {
	var q Question
	host, port, protocol, err := splitDestination(dst)
	if err != nil {
		return q, err
	}
	if q.Source, err = find(w, strings.Trim(src, "[]")); err != nil {
		return q, fmt.Errorf("source: %w", err)
	}
	if q.Destination, err = find(w, host); err != nil {
		return q, fmt.Errorf("destination: %w", err)
	}
	if service, ok := w.Services[q.Destination.addrs[0]]; ok && q.Destination.Pod == "" {
		return q, fmt.Errorf("destination: %s is the address of Service %s, which is translated before policy is asked: ask for one of its endpoints", host, service)
	}
	if err := q.chooseAddresses(w, family); err != nil {
		return q, err
	}
	q.Packet = eval.Packet{Src: q.Source.Address, Dst: q.Destination.Address, Protocol: protocol}
	return q, q.setPort(port)
}

// splitDestination cuts DST:PORT[/PROTO] into its parts.
func splitDestination(dst string) (host, port string, protocol policy.Protocol, err error) {
	const want = "expected DST:PORT[/PROTO], such as shop/db:5432, 10.1.2.3:53/UDP or [fd00::1]:443"
	if bare, err := netip.ParseAddr(dst); err == nil && bare.Is6() {
		return "", "", 0, fmt.Errorf("destination is %q: an IPv6 address stands in brackets, %s", dst, want)
	}
	i := strings.LastIndex(dst, ":")
	if i < 0 || i < strings.Index(dst, "]") {
		return "", "", 0, fmt.Errorf("destination is %q, without a port: %s", dst, want)
	}
	host, port = dst[:i], dst[i+1:]
	if bare, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(bare, "]"); !ok {
			return "", "", 0, fmt.Errorf("destination is %q: %s", dst, want)
		}
	} else if strings.Contains(host, ":") {
		return "", "", 0, fmt.Errorf("destination is %q: an IPv6 address stands in brackets, %s", dst, want)
	}
	port, name, given := strings.Cut(port, "/")
	protocol = policy.TCP
	if given {
		if protocol, err = parseProtocol(name); err != nil {
			return "", "", 0, err
		}
	}
	return host, port, protocol, nil
}

func parseProtocol(name string) (policy.Protocol, error) {
	for p := policy.Protocol(1); p != 0; p++ {
		if strings.EqualFold(name, p.String()) || name == strconv.Itoa(int(p)) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("protocol is %q, expected TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255", name)
}

// setPort reads what stands before the protocol: a port's number or name, or
// the type of a message. Nothing means a request for an echo.
func (q *Question) setPort(port string) error {
	p := &q.Packet
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case p.Protocol.HasMessages() && port == "":
		p.Type = 8
		if p.Protocol == policy.ICMPv6 {
			p.Type = 128
		}
		return nil
	case p.Protocol.HasMessages():
		if p.Type = uint8(n); err != nil || n > 255 {
			return fmt.Errorf("message is %q, expected a type of %s from 0 to 255", port, p.Protocol)
		}
		return nil
	case !p.Protocol.HasPorts():
		if port != "" && port != "0" {
			return fmt.Errorf("port is %q, expected none: %s has no ports here, write DST:/%d", port, p.Protocol, uint8(p.Protocol))
		}
		return nil
	case err == nil && n > 0:
		p.DstPort = uint16(n)
		return nil
	}
	for _, named := range q.Destination.ports {
		if named.Is(policy.PortName{Protocol: p.Protocol, Name: port}) {
			p.DstPort = named.Port
			return nil
		}
	}
	if len(q.Destination.ports) == 0 {
		return fmt.Errorf("port is %q, expected a number from 1 to 65535: %s gives names to no ports", port, q.Destination)
	}
	return fmt.Errorf("port is %q, expected a number from 1 to 65535 or a name that %s gives to a port of %s", port, q.Destination, p.Protocol)
}

// find finds who is meant: a pod as namespace/name, an address, or a node.
func find(w *world.World, text string) (End, error) {
	e := End{Text: text}
	if a, err := netip.ParseAddr(text); err == nil {
		return owner(w, a.Unmap()), nil
	}
	namespace, name, isPod := strings.Cut(text, "/")
	if !isPod {
		return node(w, e, text)
	}
	if none, ok := w.NoEndpoints[text]; ok {
		e.Pod = text
		if none.Node == "" {
			return e, fmt.Errorf("pod %s %s, and no policy applies to it", text, none.Why)
		}
		return node(w, e, none.Node)
	}
	p := w.Cluster.Pod(namespace, name)
	if p == nil {
		return e, fmt.Errorf("there is no pod %s%s", text, suggestion(w, namespace, name))
	}
	if len(p.Addrs) == 0 {
		return e, fmt.Errorf("pod %s has no address yet: ask again when it runs, or give its address", text)
	}
	e.Pod, e.addrs, e.ports = text, p.Addrs, p.Ports
	return e, nil
}

// owner tells whose address a is.
func owner(w *world.World, a netip.Addr) End {
	e := End{Text: a.String(), addrs: []netip.Addr{a}}
	for _, p := range w.Cluster.Pods {
		if slices.Contains(p.Addrs, a) {
			e.Pod, e.ports = p.Namespace+"/"+p.Name, p.Ports
			return e
		}
	}
	for _, n := range w.Cluster.Nodes {
		if slices.Contains(n.Addrs, a) {
			e.Node = n.Name
		}
	}
	return e
}

// node fills e with the addresses of a node.
func node(w *world.World, e End, name string) (End, error) {
	for _, n := range w.Cluster.Nodes {
		if n.Name == name {
			if len(n.Addrs) == 0 {
				return e, fmt.Errorf("node %s has no address of type InternalIP: give the address", name)
			}
			e.Node, e.addrs = name, n.Addrs
			return e, nil
		}
	}
	return e, fmt.Errorf("there is no node %s, and it is no address%s", name, suggestion(w, "", name))
}

// suggestion names pods that may have been meant.
func suggestion(w *world.World, namespace, name string) string {
	var beside []string
	for _, p := range w.Cluster.Pods {
		if p.Name == name {
			return ": is pod " + p.Namespace + "/" + p.Name + " meant?"
		}
		if p.Namespace == namespace {
			beside = append(beside, p.Name)
		}
	}
	if slices.Sort(beside); len(beside) > 0 {
		return ", but in its namespace are " + strings.Join(beside[:min(len(beside), 10)], ", ")
	}
	return ": pods are written NAMESPACE/NAME, IPv6 addresses in brackets before a port"
}

// chooseAddresses picks addresses of one family, which both ends have.
func (q *Question) chooseAddresses(w *world.World, family Family) error {
	for _, s := range q.Source.addrs {
		for _, d := range q.Destination.addrs {
			if s.Is4() != d.Is4() || family == 4 && !s.Is4() || family == 6 && s.Is4() {
				continue
			}
			q.Source.Address, q.Source.MadeUp = s, w.MadeUp[s]
			q.Destination.Address, q.Destination.MadeUp = d, w.MadeUp[d]
			return nil
		}
	}
	return fmt.Errorf("source %s and destination %s have no addresses of one family: %v and %v", q.Source.Text, q.Destination.Text, q.Source.addrs, q.Destination.addrs)
}
