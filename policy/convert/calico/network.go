package calico

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/koratnet/korat/policy"
)

var hostWords = map[string]string{
	"spec.profiles": "there are no profiles: a direction of which no policy says anything is closed, so write policies first",
}

var poolWords = map[string]string{
	"spec.ipipMode":          "nothing is encapsulated: the network between nodes must route the addresses of pods, see BGPPeer",
	"spec.vxlanMode":         "nothing is encapsulated: the network between nodes must route the addresses of pods, see BGPPeer",
	"spec.disableBGPExport":  "all pools are announced: filter on the routers",
	"spec.namespaceSelector": "pools are for all namespaces: this one is disabled, so that others do not get its addresses",
	"spec.assignmentMode":    "pools are for all pods: this one is disabled, so that others do not get its addresses",
}

var bgpWords = map[string]string{
	"spec.serviceLoadBalancerIPs": "addresses of services are not announced",
	"spec.serviceExternalIPs":     "addresses of services are not announced",
	"spec.serviceClusterIPs":      "addresses of services are not announced",
	"spec.logSeverityScreen":      "it is the flag --log-level of korat agent",
	"spec.nodeMeshPassword":       "sessions have no passwords",
}

var peerWords = map[string]string{
	"spec.password":     "sessions have no passwords: a router that asks for one refuses them",
	"spec.filters":      "there are no filters: filter on the router",
	"spec.ttlSecurity":  "the distance of the router is not checked",
	"spec.peerSelector": "nodes have sessions with each other in the mesh only",
}

var felixWords = map[string]string{
	"spec.logSeverityScreen":        "it is the flag --log-level of korat agent",
	"spec.healthHost":               "it is the flag --http-address of korat agent",
	"spec.healthPort":               "it is the flag --http-address of korat agent",
	"spec.healthEnabled":            "it is the flag --http-address of korat agent",
	"spec.prometheusMetricsHost":    "it is the flag --http-address of korat agent",
	"spec.prometheusMetricsPort":    "it is the flag --http-address of korat agent",
	"spec.prometheusMetricsEnabled": "it is the flag --http-address of korat agent",
}

// tier converts a tier, but for those that are always there.
func (c *conversion) tier() {
	name := text(of(c.in, "metadata")["name"])
	if slices.Contains([]string{policy.AdminTier, policy.DefaultTier, policy.BaselineTier}, name) {
		delete(c.in, "spec")
		c.dropped = true
		c.remark("", "", "not converted: this tier is always there, as Kubernetes wants it")
		return
	}
	move(of(c.in, "spec"), c.spec, "order", "defaultAction")
}

func (c *conversion) networkSet() {
	spec := of(c.in, "spec")
	c.nets("spec.nets", spec, "nets")
	move(spec, c.spec, "nets")
}

func (c *conversion) hostEndpoint() {
	spec := of(c.in, "spec")
	if ips, ok := spec["expectedIPs"].([]any); ok {
		for i, ip := range ips {
			if a, err := netip.ParseAddr(text(ip)); err == nil {
				ips[i] = a.String()
			}
		}
	}
	move(spec, c.spec, "node", "interfaceName", "expectedIPs", "ports")
}

// pool converts a pool. One that is not for everybody is disabled: it keeps its
// routes, and nobody gets an address of it who would not have got it before.
func (c *conversion) pool() {
	spec := of(c.in, "spec")
	uses, limited := spec["allowedUses"].([]any)
	if limited && !slices.Contains(uses, any("Workload")) {
		c.whole("not converted: pools are for pods, this one is not")
		return
	}
	for _, use := range uses {
		if use != "Workload" {
			c.remark("spec.allowedUses", use, "pools are for pods only")
		}
	}
	delete(spec, "allowedUses")
	move(spec, c.spec, "blockSize", "disabled", "nodeSelector", "natOutgoing")
	if cidr, ok := take[string](spec, "cidr"); ok {
		c.spec["cidr"] = canonical(cidr)
	}
	for _, name := range []string{"namespaceSelector", "assignmentMode"} {
		if v, ok := spec[name].(string); ok && v != "" && harmless["spec."+name] != v {
			c.spec["disabled"] = true
		}
	}
}

func (c *conversion) bgpConfiguration() {
	if name := text(of(c.in, "metadata")["name"]); name != "default" {
		c.whole("not converted: there is one BGPConfiguration, named default; a node's own asNumber is in its NodeNetwork")
		return
	}
	spec := of(c.in, "spec")
	c.asNumber(spec, "asNumber")
	if mesh, ok := take[bool](spec, "nodeToNodeMeshEnabled"); ok {
		c.spec["nodeToNodeMesh"] = map[bool]string{true: "Enabled", false: "Disabled"}[mesh]
	}
	move(spec, c.spec, "listenPort")
	if t, ok := take[string](spec, "nodeMeshMaxRestartTime"); ok {
		c.spec["gracefulRestart"] = Object{"restartTime": t}
	}
}

// bgpPeer converts a peer that is a router, told by its address.
func (c *conversion) bgpPeer() {
	spec := of(c.in, "spec")
	peer, ok := take[string](spec, "peerIP")
	if !ok || peer == "" {
		c.whole("not converted: a peer here is a router outside of the cluster with an address, peerIP")
		return
	}
	c.spec["address"] = peer
	if at, err := netip.ParseAddrPort(peer); err == nil {
		c.spec["address"], c.spec["port"] = at.Addr().String(), int64(at.Port())
	} else if a, err := netip.ParseAddr(peer); err == nil {
		c.spec["address"] = a.String()
	}
	c.asNumber(spec, "asNumber")
	move(spec, c.spec, "nodeSelector")
	if node, ok := take[string](spec, "node"); ok && node != "" {
		c.spec["nodeSelector"] = fmt.Sprintf("kubernetes.io/hostname == '%s'", node)
		c.remark("spec.node", node, "nodes are chosen by labels: kubernetes.io/hostname is the name of the node, unless somebody changed it")
	}
	c.keepalive(spec)
}

// keepalive converts the time between signs of life, which must be less than the
// hold time, 90 s. The usual relation of the two is three.
func (c *conversion) keepalive(spec Object) {
	t, ok := spec["keepaliveTime"].(string)
	if !ok {
		return
	}
	d, err := time.ParseDuration(t)
	if err != nil || d < time.Second {
		return // is told as what is left
	}
	delete(spec, "keepaliveTime")
	c.spec["keepaliveTime"] = t
	if hold := 3 * d.Truncate(time.Second); d >= 90*time.Second {
		c.spec["holdTime"] = hold.String()
		c.remark("spec.keepaliveTime", t, "the hold time is three times as long, "+hold.String())
	}
}

// asNumber converts a number that may be written 64512, "64512" or "1.10".
func (c *conversion) asNumber(spec Object, name string) {
	v, ok := spec[name]
	if !ok {
		return
	}
	high, low, dotted := strings.Cut(text(v), ".")
	if !dotted {
		high, low = "0", high
	}
	h, err1 := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 32)
	if err1 != nil || err2 != nil || dotted && l > 65535 {
		return // is told as what is left
	}
	delete(spec, name)
	c.spec[name] = int64(h<<16 | l)
}
