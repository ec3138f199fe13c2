package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// otherProtocol stands for all protocols of which no policy speaks. RFC 3692
// keeps it for experiments.
const otherProtocol policy.Protocol = 253

// sourcePort is that of every probe: one of those that clients get.
const sourcePort = 50000

// probe is traffic of which policies can only say one thing: a range of ports
// between two numbers that some rule names, a message, or a protocol.
type probe struct {
	packet      eval.Packet
	first, last uint16 // of the ports that it stands for
}

// between returns the packet with the addresses of another.
func (p probe) between(ends eval.Packet) eval.Packet {
	packet := p.packet
	packet.Src, packet.Dst = ends.Src, ends.Dst
	return packet
}

// probes returns a probe for everything that the rules of some cluster tell apart.
// All of them together are all traffic.
func probes(clusters ...*eval.Cluster) []probe {
	c := cuts{ports: map[policy.Protocol]map[uint16]bool{policy.TCP: {}, policy.UDP: {}}, messages: map[policy.Protocol]map[[2]uint8]bool{
		policy.ICMP: {{255, 255}: true}, policy.ICMPv6: {{255, 255}: true},
	}, plain: map[policy.Protocol]bool{otherProtocol: true}}
	for _, cluster := range clusters {
		for _, p := range cluster.Policies {
			for _, r := range slices.Concat(p.Ingress, p.Egress) {
				for _, list := range [][]policy.Port{r.Ports, r.NotPorts, r.SrcPorts, r.NotSrcPorts} {
					for _, port := range list {
						c.add(cluster, port)
					}
				}
			}
		}
		for _, s := range cluster.Services {
			for _, e := range s.Ends {
				if e.Protocol.HasPorts() {
					c.cut(e.Protocol, e.Port, e.Port)
				}
			}
		}
	}
	return c.probes()
}

// cuts are the places where rules begin to mean something else.
type cuts struct {
	ports    map[policy.Protocol]map[uint16]bool // the first port of each range
	messages map[policy.Protocol]map[[2]uint8]bool
	plain    map[policy.Protocol]bool
}

func (c *cuts) add(cluster *eval.Cluster, p policy.Port) {
	switch {
	case p.Name != "":
		for _, pod := range cluster.Pods {
			for _, n := range pod.Ports {
				if n.Is(policy.PortName{Protocol: p.Protocol, Name: p.Name}) {
					c.cut(n.Protocol, n.Port, n.Port)
				}
			}
		}
	case p.Protocol.HasPorts():
		c.cut(p.Protocol, p.First, p.Last)
	case p.Protocol.HasMessages():
		if p.Message.Compare == policy.MessageTypeAndCode {
			c.messages[p.Protocol][[2]uint8{p.Message.Type, p.Message.Code}] = true
		}
		if p.Message.Compare != policy.AnyMessage {
			c.messages[p.Protocol][[2]uint8{p.Message.Type, 255}] = true
		}
	case p.Protocol != policy.AnyProtocol:
		c.plain[p.Protocol] = true
	}
}

func (c *cuts) cut(p policy.Protocol, first, last uint16) {
	if c.ports[p] == nil {
		c.ports[p] = map[uint16]bool{}
	}
	if first != 0 || last != 0 {
		c.ports[p][first] = true
		c.ports[p][last+1] = true // 0 after the last port of all
	}
}

func (c *cuts) probes() []probe {
	var all []probe
	for p, firsts := range c.ports {
		firsts[1] = true
		delete(firsts, 0)
		sorted := keys(firsts)
		for i, first := range sorted {
			last := uint16(65535)
			if i+1 < len(sorted) {
				last = sorted[i+1] - 1
			}
			all = append(all, probe{eval.Packet{Protocol: p, SrcPort: sourcePort, DstPort: first}, first, last})
		}
	}
	for p, messages := range c.messages {
		for m := range messages {
			all = append(all, probe{packet: eval.Packet{Protocol: p, Type: m[0], Code: m[1]}})
		}
	}
	for p := range c.plain {
		all = append(all, probe{packet: eval.Packet{Protocol: p}})
	}
	slices.SortFunc(all, func(a, b probe) int {
		return cmp.Or(cmp.Compare(rank(a.packet.Protocol), rank(b.packet.Protocol)), cmp.Compare(a.first, b.first),
			cmp.Compare(a.packet.Type, b.packet.Type), cmp.Compare(a.packet.Code, b.packet.Code))
	})
	return all
}

// rank orders protocols as people do, the others by their numbers, and at last
// those of which no policy speaks.
func rank(p policy.Protocol) int {
	if i := slices.Index([]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, policy.ICMPv6}, p); i >= 0 {
		return i
	}
	if p == otherProtocol {
		return 1000
	}
	return 10 + int(p)
}

func keys(m map[uint16]bool) []uint16 {
	var out []uint16
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// fits reports whether the probe is traffic of the family.
func (p probe) fits(v6 bool) bool {
	if v6 {
		return p.packet.Protocol != policy.ICMP
	}
	return p.packet.Protocol != policy.ICMPv6
}

// describe says which traffic some of all probes stand for.
func describe(some, all []probe) []string {
	if len(some) == len(all) {
		return []string{"all traffic"}
	}
	var out []string
	for len(some) > 0 {
		protocol := some[0].packet.Protocol
		same := func(p probe) bool { return p.packet.Protocol == protocol }
		other := func(p probe) bool { return !same(p) }
		mine, total := slices.DeleteFunc(slices.Clone(some), other), slices.DeleteFunc(slices.Clone(all), other)
		some = slices.DeleteFunc(slices.Clone(some), same)
		out = append(out, describeOne(protocol, mine, total)...)
	}
	return out
}

// describeOne says it of the probes of one protocol.
func describeOne(protocol policy.Protocol, some, all []probe) []string {
	switch {
	case protocol == otherProtocol:
		return []string{"other protocols"}
	case len(some) == len(all):
		return []string{protocol.String()}
	case protocol.HasMessages():
		var out []string
		for _, p := range some {
			out = append(out, messageText(p.packet, all))
		}
		return out
	}
	var ranges []string
	for i := 0; i < len(some); {
		first, last := some[i].first, some[i].last
		for i++; i < len(some) && some[i].first == last+1; i++ {
			last = some[i].last
		}
		if first == last {
			ranges = append(ranges, fmt.Sprint(first))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", first, last))
		}
	}
	return []string{protocol.String() + " " + strings.Join(ranges, ",")}
}

func messageText(p eval.Packet, all []probe) string {
	withCode := func(o probe) bool { return o.packet.Type == p.Type && o.packet.Code != p.Code }
	switch {
	case p.Type == 255:
		return fmt.Sprintf("other messages of %s", p.Protocol)
	case p.Code != 255:
		return fmt.Sprintf("%s type %d code %d", p.Protocol, p.Type, p.Code)
	case slices.ContainsFunc(all, withCode):
		return fmt.Sprintf("%s type %d with other codes", p.Protocol, p.Type)
	}
	return fmt.Sprintf("%s type %d", p.Protocol, p.Type)
}
