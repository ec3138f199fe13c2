package eval

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// The details that are easily got wrong, each by its number, from manifests to
// verdicts in the world of the recipes.

// shop makes the recipes' world with policies.
func shop(t *testing.T, docs ...string) *Cluster {
	t.Helper()
	o := recipeWorld()
	for _, doc := range docs {
		if err := o.take([]byte(doc)); err != nil {
			t.Fatal(err)
		}
	}
	c := fromTiers(t, o)
	c.Nodes = []Node{{Name: "node", Addrs: []netip.Addr{ip("172.16.0.1")}}, {Name: "other", Addrs: []netip.Addr{ip("172.16.0.2")}}}
	return c
}

// knp and cnp write policies with a spec; knp's are of the shop.
func knp(name, spec string) string {
	return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: shop}, spec: {%s}}", name, spec)
}

func cnpolicy(name, spec string) string {
	return fmt.Sprintf("{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: %s}, spec: {%s}}", name, spec)
}

// packetOf reads "web>db 80/TCP": names of pods, "itself" or addresses.
func packetOf(t *testing.T, c *Cluster, text string) Packet {
	t.Helper()
	ends, what, _ := strings.Cut(text, " ")
	from, to, _ := strings.Cut(ends, ">")
	addr := func(name string) netip.Addr {
		if i := slices.IndexFunc(c.Pods, func(p Pod) bool { return p.Name == name }); i >= 0 {
			return c.Pods[i].Addrs[0]
		}
		if a, ok := recipeOutside[name]; ok {
			return a
		}
		return ip(name)
	}
	p := Packet{Src: addr(from), Dst: addr(to)}
	number, protocol, _ := strings.Cut(what, "/")
	p.Protocol = map[string]policy.Protocol{"TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP, "ICMP": policy.ICMP}[protocol]
	if _, err := fmt.Sscan(number, &p.DstPort); err != nil || p.Protocol == 0 {
		t.Fatalf("packet %q", text)
	}
	return p
}

// judge wants that the packets named pass, and those behind a "!" do not.
func judge(t *testing.T, c *Cluster, packets ...string) {
	t.Helper()
	for _, text := range packets {
		text, closed := strings.CutPrefix(text, "!")
		if v := c.Verdict(packetOf(t, c, text)); (v.Action == policy.Allow) == closed {
			t.Errorf("%s: %s", text, v)
		}
	}
}

func TestItem33SelectorsOfPeersMatchPodsOnly(t *testing.T) {
	c := shop(t, knp("all-pods", "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]"))
	c.NetworkSets = []policy.NetworkSet{{Namespace: "shop", Nets: nets("203.0.113.0/24")}, {Nets: nets("192.168.0.0/16")}}
	judge(t, c, "shell>web 80/TCP", "db>web 80/TCP", "!internet>web 80/TCP", "!office>web 80/TCP", "!172.16.0.2>web 80/TCP")
}

func TestItem34ExceptSubtractsFromItsOwnBlockOnly(t *testing.T) {
	c := shop(t, knp("blocks", `podSelector: {}, ingress: [{from: [
		{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.0.4/30]}}, {ipBlock: {cidr: 10.244.0.5/32}}, {podSelector: {}}]}]`))
	judge(t, c, "web>api 1/TCP", "!monitor>api 1/TCP", "shell>api 1/TCP", "!dns>api 1/TCP")
	judge(t, c, "10.244.1.1>api 1/TCP") // not a pod: blocks are addresses
}

func TestItem35EverythingIsEverything(t *testing.T) {
	c := shop(t, knp("v6", `podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]`))
	c.Pods[0].Addrs = append(c.Pods[0].Addrs, ip("fd00::1"))
	judge(t, c, "64:ff9b::1>fd00::1 1/TCP", "fe80::1>fd00::1 1/TCP", "fc00::1>fd00::1 1/TCP", "2001:db8::1>fd00::1 1/TCP", "!internet>web 1/TCP")
}

func TestItem36BlocksOfTheOtherFamilyMatchNothing(t *testing.T) {
	judge(t, shop(t, knp("v6", `podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "fd00::/8"}}]}]`)), "!web>api 1/TCP", "!internet>api 1/TCP")
	judge(t, shop(t, knp("bad", `podSelector: {}, egress: [{to: [{ipBlock: {cidr: "10.0.0.0"}}]}]`)), "!web>api 1/TCP", "!web>internet 1/TCP")
}

func TestItem37NamesOfPortsAreThoseOfTheDestination(t *testing.T) {
	c := shop(t, knp("in", "podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: metrics}]}]"))
	judge(t, c, "shell>api 9101/TCP", "!shell>api 9100/TCP", "shell>db 9100/TCP", "!shell>db 9101/TCP", "!shell>web 9100/TCP", "!shell>db 9100/UDP")
	db := c.Pod("shop", "db")
	db.Ports = append(db.Ports, policy.NamedPort{Name: "metrics", Protocol: policy.TCP, Port: 7}) // one name, two numbers
	judge(t, c, "shell>db 9100/TCP", "shell>db 7/TCP", "!shell>api 7/TCP")

	c = shop(t, knp("out", `podSelector: {matchLabels: {role: web}}, policyTypes: [Egress], egress: [
		{to: [{podSelector: {matchLabels: {role: db}}}, {ipBlock: {cidr: 10.244.0.2/32}}], ports: [{port: metrics}]}]`))
	judge(t, c, "web>db 9100/TCP", "!web>db 9101/TCP", "!web>api 9101/TCP") // an address has no names
}

func TestItem38RangesOfPorts(t *testing.T) {
	c := shop(t, knp("range", "podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]"))
	judge(t, c, "!shell>db 79/TCP", "shell>db 80/TCP", "shell>db 90/TCP", "!shell>db 91/TCP", "!shell>db 85/UDP")
}

func TestItem39ProtocolsOfPorts(t *testing.T) {
	c := shop(t, knp("ports", "podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: SCTP, port: 9}, {protocol: GRE, port: 7}]}]"))
	judge(t, c, "shell>db 80/TCP", "!shell>db 80/UDP", "shell>db 9/SCTP", "!shell>db 7/TCP")
}

func TestItem40BothSidesMustAllow(t *testing.T) {
	in, out := knp("in", "podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]"), knp("out", "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 81}]}]")
	more := knp("more", "podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}]") // policies add up
	judge(t, shop(t, in, out), "!web>db 80/TCP", "!web>db 81/TCP", "shell>db 80/TCP")
	judge(t, shop(t, in, out, more), "!web>db 80/TCP", "web>db 81/TCP")
}

func TestItem41And42OwnNodeAndOwnPod(t *testing.T) {
	c := shop(t, knp("closed", "podSelector: {}, policyTypes: [Ingress, Egress]"))
	judge(t, c, "172.16.0.1>db 80/TCP", "!172.16.0.2>db 80/TCP", "!db>172.16.0.1 80/TCP", "db>db 80/TCP")
}

func TestItem43LabelsOfNamespaces(t *testing.T) {
	c := shop(t, knp("from-ops", "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: operations}}}]}]"))
	judge(t, c, "monitor>db 80/TCP", "!dns>db 80/TCP")
	c.Namespaces["ops"], c.Namespaces["kube-system"] = nil, selector.MakeLabels(map[string]string{"team": "operations"})
	judge(t, c, "!monitor>db 80/TCP", "dns>db 80/TCP")
	delete(c.Namespaces, "kube-system") // deleted before its pods
	judge(t, c, "!dns>db 80/TCP")
}

func TestItem45PodsThatNobodySelectsAreOpen(t *testing.T) {
	c := shop(t, cnpolicy("base", "tier: Baseline, priority: 1, subject: {namespaces: {matchLabels: {team: operations}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]"))
	judge(t, c, "web>db 80/TCP", "!web>shell 80/TCP", "internet>shell 80/TCP", "shell>web 80/TCP")
}

func TestItem46PortsMeanNoICMP(t *testing.T) {
	judge(t, shop(t, knp("ports", "podSelector: {}, ingress: [{ports: [{protocol: TCP}, {protocol: UDP}]}]")), "shell>db 1/TCP", "!shell>db 0/ICMP")
	c := shop(t, knp("none", "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]"))
	judge(t, c, "shell>db 0/ICMP")
	p := packetOf(t, c, "internet>db 0/ICMP")
	p.State = Related // "fragmentation needed" from a router on the way
	if v := c.Verdict(p); v.Action != policy.Allow {
		t.Errorf("%s: %s", p, v)
	}
}

const securityTier = "{apiVersion: korat.dev/v1, kind: Tier, metadata: {name: security}, spec: {order: 1}}"

func gnp(name, spec string) string {
	return fmt.Sprintf("{apiVersion: korat.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: %s}, spec: {%s}}", name, spec)
}

func TestItem48TiersThatSelectNobodyAreSkipped(t *testing.T) {
	c := shop(t, securityTier, gnp("in", "tier: security, selector: role == 'db', types: [Ingress]"))
	judge(t, c, "!web>db 80/TCP", "web>api 80/TCP", "db>api 80/TCP") // not another pod, not the other direction
	c = shop(t, securityTier, gnp("in", "tier: security, enforcement: Staged, selector: role == 'db', types: [Ingress]"))
	judge(t, c, "web>db 80/TCP")
}

func TestItem50PassLeavesTheTier(t *testing.T) {
	pass := gnp("a", "tier: security, order: 1, selector: role == 'db', ingress: [{action: Pass}]")
	deny := gnp("b", "tier: security, order: 2, selector: role == 'db', ingress: [{action: Deny}]")
	judge(t, shop(t, securityTier, pass, deny), "web>db 80/TCP")
	judge(t, shop(t, securityTier, pass, deny, knp("db", "podSelector: {matchLabels: {role: db}}")), "!web>db 80/TCP")
}

func TestItem52NotSelectorMatchesTheUnknown(t *testing.T) {
	own := "{apiVersion: korat.dev/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {selector: role == 'web', ingress: [{action: Allow, source: {%s}}]}}"
	judge(t, shop(t, fmt.Sprintf(own, "notSelector: has(role)")), "!api>web 80/TCP", "shell>web 80/TCP", "internet>web 80/TCP")
	judge(t, shop(t, fmt.Sprintf(own, "selector: '!has(role)'")), "!api>web 80/TCP", "!shell>web 80/TCP", "!internet>web 80/TCP")
	judge(t, shop(t, fmt.Sprintf(own, "selector: '!has(role)', namespaceSelector: all()")), "!api>web 80/TCP", "shell>web 80/TCP", "!internet>web 80/TCP")
}

func TestItem53NetworkSetsOverlapAndAreNoSubjects(t *testing.T) {
	c := shop(t, gnp("sets", "selector: role == 'web' || zone == 'a', types: [Ingress], ingress: [{action: Allow, source: {selector: zone == 'a'}}]"))
	zone := func(z string) selector.Labels { return selector.MakeLabels(map[string]string{"zone": z}) }
	c.NetworkSets = []policy.NetworkSet{{Labels: zone("a"), Nets: nets("203.0.113.0/24", "10.244.0.4/32")}, {Labels: zone("b"), Nets: nets("0.0.0.0/0", "203.0.113.9/32")}}
	judge(t, c, "internet>web 80/TCP", "monitor>web 80/TCP", "!office>web 80/TCP", "!shell>web 80/TCP", "shell>monitor 80/TCP")
}

func TestItem54AcceptIsForOneSideOnly(t *testing.T) {
	accept := cnpolicy("accept", "tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]")
	closed := knp("closed", "podSelector: {}, policyTypes: [Ingress, Egress]")
	judge(t, shop(t, accept, closed), "shell>db 80/TCP", "!db>shell 80/TCP", "!internet>db 80/TCP")
}

func TestItem54NetworkPoliciesAreFinal(t *testing.T) {
	base := cnpolicy("base", "tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]")
	judge(t, shop(t, base, knp("closed", "podSelector: {matchLabels: {role: db}}")), "!shell>db 80/TCP", "shell>web 80/TCP")
}

func TestItem54NetworksAndNodes(t *testing.T) {
	c := shop(t, cnpolicy("out", `tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [
		{action: Accept, to: [{nodes: {matchLabels: {role: lb}}}]}, {action: Deny, to: [{networks: ["0.0.0.0/0"]}]}]`))
	c.Nodes[1].Labels = selector.MakeLabels(map[string]string{"role": "lb"})
	c.Nodes[1].Addrs = append(c.Nodes[1].Addrs, ip("198.51.100.7"))
	judge(t, c, "web>172.16.0.2 1/TCP", "web>198.51.100.7 1/TCP", "!web>172.16.0.1 1/TCP", "!web>internet 1/TCP", "!web>db 1/TCP")
}

func TestItem56ServicesAreTheirEndpointsReadyOrNot(t *testing.T) {
	own := "{apiVersion: korat.dev/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {selector: role == 'web', %s}}"
	out := fmt.Sprintf(own, "egress: [{action: Allow, destination: {services: {name: api}}}]")
	judge(t, shop(t, out), "web>api 80/TCP", "!web>api 81/TCP", "!web>db 80/TCP")
	in := fmt.Sprintf(own, "ingress: [{action: Allow, source: {services: {name: api}}}]")
	judge(t, shop(t, in), "api>web 1/TCP", "!db>web 1/TCP")
}
