package dataplanetest

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/koratnet/korat/policy"
)

// services are translated to a site each: service i has the address i+1 of the
// service ranges, port 80, and the port 30080+i of every node.
var services = []string{"a", "b", "c", "rem0", "rem1"}

const (
	servicePort = 80
	targetPort  = 8080
	firstNode   = 30080 // the node port of service 0
)

// serviceNets are the ranges of service addresses.
var serviceNets = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24"), netip.MustParsePrefix("fd96::/120")}

// serviceAddr returns the address of service i. Those behind the last are
// addresses that nobody serves.
func serviceAddr(i int, is6 bool) netip.Addr {
	net := serviceNets[0]
	if is6 {
		net = serviceNets[1]
	}
	a := net.Addr()
	for range i + 1 {
		a = a.Next()
	}
	return a
}

// viaService returns the shot of p by way of service i, or of its node port.
func (w *world) viaService(from *site, i int, is6 bool, p packet, nodePort string) shot {
	to := w.sites[services[i]]
	p.Dst, p.DstPort = to.addrs[is6], targetPort
	before := netip.AddrPortFrom(serviceAddr(i, is6), servicePort)
	if nodePort != "" {
		before = netip.AddrPortFrom(w.sites[nodePort].addrs[is6], uint16(firstNode+i))
	}
	s := shot{from: from, to: to, packet: p, before: before}
	if from.iface == "" {
		s.beforeOut = "eth0" // the way of service addresses
	}
	return s
}

// translate makes the rules of services, as kube-proxy has them: what is asked
// of a node port hides behind the node, and so does a pod that reaches itself.
func (w *world) translate() {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("table inet proxy {\n")
	b.WriteString("chain services {\n")
	for i, name := range services {
		for _, is6 := range bothFamilies {
			ip, target := "ip", w.sites[name].addrs[is6].String()
			if is6 {
				ip, target = "ip6", "["+target+"]"
			}
			for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
				l4 := strings.ToLower(proto.String())
				fmt.Fprintf(&b, "%s daddr %s %s dport %d dnat %s to %s:%d\n", ip, serviceAddr(i, is6), l4, servicePort, ip, target, targetPort)
				fmt.Fprintf(&b, "meta nfproto %s fib daddr type local %s dport %d meta mark set mark or 0x4000 dnat %s to %s:%d\n",
					map[bool]string{false: "ipv4", true: "ipv6"}[is6], l4, firstNode+i, ip, target, targetPort)
			}
		}
	}
	b.WriteString(`}
		chain prerouting { type nat hook prerouting priority -100; jump services; }
		chain output { type nat hook output priority -100; jump services; }
		chain postrouting {
			type nat hook postrouting priority 100
			meta mark & 0x4000 != 0 meta mark set mark and 0xffffbfff masquerade random
`)
	for _, pod := range pods {
		for _, is6 := range bothFamilies {
			ip := map[bool]string{false: "ip", true: "ip6"}[is6]
			fmt.Fprintf(&b, "%s saddr %s %s daddr %s masquerade random\n", ip, w.sites[pod].addrs[is6], ip, w.sites[pod].addrs[is6])
		}
	}
	b.WriteString("}\n}\n")
	w.node.Run("sh", "-c", "nft -f - <<'EOF'\n"+b.String()+"EOF\n")
}
