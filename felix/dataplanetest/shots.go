package dataplanetest

import (
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
)

// shotsPerWay is how many packets of a cluster go each way.
const shotsPerWay = 2

// ways are the directions in which packets go, by where they begin and end.
var ways = []struct{ from, to []string }{
	{pods, pods},
	{pods, []string{"rem0", "rem1"}},
	{[]string{"rem0", "rem1"}, pods},
	{pods, []string{"host", "host1"}},
	{[]string{"host", "host1"}, pods},
	{[]string{"out0", "out1", "node0", "node1"}, pods},
	{pods, []string{"out0", "out1", "node0", "node1"}},
	{[]string{"out0", "out1", "node0", "node1", "rem0"}, []string{"host", "host1"}},
	{[]string{"host", "host1"}, []string{"out0", "out1", "node0", "rem1"}},
	{uplinks["eth0"], uplinks["eth1"]},
	{uplinks["eth1"], uplinks["eth0"]},
}

// shots draws packets of all directions.
func (c *cluster) shots(w *world) []shot {
	var shots []shot
	for _, way := range ways {
		for range shotsPerWay {
			from, to := w.sites[pick(c.dice, way.from...)], w.sites[pick(c.dice, way.to...)]
			for from == to {
				to = w.sites[pick(c.dice, way.to...)]
			}
			is6 := c.one(2)
			p := c.packet(is6, false)
			p.Src, p.Dst = from.addrs[is6], to.addrs[is6]
			shots = append(shots, shot{from: from, to: to, packet: w.numbered(p)})
		}
	}
	for range 5 * shotsPerWay {
		shots = append(shots, c.serviceShot(w))
	}
	return shots
}

// serviceShot draws a packet to a service address or a node port, now and then of
// a service that leads back, or to an address that nobody serves.
func (c *cluster) serviceShot(w *world) shot {
	is6, i := c.one(2), c.IntN(len(services))
	from := w.sites[pick(c.dice, "a", "b", "c", "out0", "out1", "rem0", "rem1", "host")]
	turned := func() bool { return from.iface == w.sites[services[i]].iface && !slices.Contains(pods, from.name) }
	for turned() || from.name == services[i] && !c.one(4) { // what turns round outside is none of the node's packets
		i = c.IntN(len(services))
	}
	p := c.packet(is6, true)
	p.Src = from.addrs[is6]
	if c.one(6) && from.iface != "eth0" && from.name != "host" {
		p.Dst, p.DstPort = serviceAddr(100, is6), servicePort
		return shot{from: from, to: w.sites["out0"], packet: w.numbered(p)}
	}
	nodePort := ""
	if c.one(3) && from.name != "host" {
		nodePort = pick(c.dice, "host", "host1")
	}
	return w.viaService(from, i, is6, w.numbered(p), nodePort)
}

// packet draws what a packet is, but for its ends.
func (c *cluster) packet(is6, withPorts bool) eval.Packet {
	p := eval.Packet{Protocol: pick(c.dice, policy.TCP, policy.TCP, policy.UDP, policy.UDP, policy.SCTP, policy.ICMP)}
	if withPorts && p.Protocol == policy.ICMP {
		p.Protocol = policy.UDP
	}
	switch {
	case p.Protocol.HasPorts():
		p.DstPort = pick(c.dice, uint16(80), 80, 81, 443, 22, 53, 8080, 6443)
		p.SrcPort = uint16(firstSrc + c.IntN(65536-firstSrc))
	case is6:
		p.Protocol, p.Type, p.Code = policy.ICMPv6, echoRequest6, uint8(c.IntN(2))
		if c.one(3) {
			p.Type, p.Code = pick(c.dice, discovery...), 0
		}
	default:
		p.Type, p.Code = pick(c.dice, uint8(echoRequest), timestampRequest), uint8(c.IntN(2))
	}
	return p
}
