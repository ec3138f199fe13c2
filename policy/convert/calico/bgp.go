package calico

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

var bgpWords = map[string]string{
	"spec.logSeverityScreen":        "it is the flag --log-level of korat agent",
	"spec.bindMode":                 "speakers listen on all addresses of their node",
	"spec.ignoredInterfaces":        "routes of interfaces are announced to nobody here",
	"spec.communities":              "communities are written as numbers, in a BGPAdvertisement or BGPFilter",
	"spec.prefixAdvertisements":     "write a BGPAdvertisement for the pool, with these communities",
	"spec.localWorkloadPeeringIPV4": "pods are no peers",
	"spec.localWorkloadPeeringIPV6": "pods are no peers",
}

var peerWords = map[string]string{
	"spec.reversePeering": "nodes on both sides of a peerSelector have the session",
}

var filterWords = map[string]string{
	"spec.importV4": "rules do not ask for this", "spec.importV6": "rules do not ask for this",
	"spec.exportV4": "rules do not ask for this", "spec.exportV6": "rules do not ask for this",
}

func (c *conversion) bgpConfiguration() {
	if name := text(of(c.in, "metadata")["name"]); name != "default" {
		c.whole("not converted: there is one BGPConfiguration, named default; a node's own asNumber is in its NodeNetwork")
		return
	}
	spec := of(c.in, "spec")
	c.asNumber(spec, "asNumber", "asNumber")
	if mesh, ok := take[bool](spec, "nodeToNodeMeshEnabled"); ok {
		c.spec["nodeToNodeMesh"] = map[bool]string{true: "Enabled", false: "Disabled"}[mesh]
	}
	move(spec, c.spec, "listenPort")
	c.secret(spec, "nodeMeshPassword", "meshPassword")
	if t, ok := take[string](spec, "nodeMeshMaxRestartTime"); ok {
		c.spec["gracefulRestart"] = Object{"restartTime": t}
	}
	aggregation, ok := spec["serviceLoadBalancerAggregation"].(string)
	if ok && (aggregation == "Enabled" || aggregation == "Disabled") {
		delete(spec, "serviceLoadBalancerAggregation")
	}
	for _, name := range []string{"serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs"} {
		list, ok := spec[name].([]any)
		if !ok {
			continue
		}
		ranges := []any{}
		for _, item := range list {
			o, _ := item.(Object)
			cidr, ok := take[string](o, "cidr")
			if !ok {
				continue
			}
			r := Object{"cidr": canonical(cidr)}
			if name == "serviceLoadBalancerIPs" && aggregation == "Disabled" {
				r["aggregation"] = aggregation
			}
			ranges = append(ranges, r)
		}
		c.spec[name] = ranges
	}
}

// bgpPeer converts a peer that is a router, told by its address, or other nodes.
func (c *conversion) bgpPeer() {
	spec := of(c.in, "spec")
	peer, ok := take[string](spec, "peerIP")
	nodes, chosen := take[string](spec, "peerSelector")
	switch {
	case ok && peer != "":
		c.spec["address"] = peer
		if at, err := netip.ParseAddrPort(peer); err == nil {
			c.spec["address"], c.spec["port"] = at.Addr().String(), int64(at.Port())
		} else if a, err := netip.ParseAddr(peer); err == nil {
			c.spec["address"] = a.String()
		}
		c.asNumber(spec, "asNumber", "asNumber")
	case chosen && nodes != "":
		c.spec["peerSelector"] = nodes
		if asn, ok := spec["asNumber"]; ok {
			c.remark("spec.asNumber", asn, "nodes have their own")
			delete(spec, "asNumber")
		}
	default:
		c.whole("not converted: a peer here is a router outside of the cluster with an address, peerIP, or nodes, peerSelector")
		return
	}
	move(spec, c.spec, "nodeSelector", "reachableBy", "filters", "ttlSecurity")
	if node, ok := take[string](spec, "node"); ok && node != "" {
		c.spec["nodeSelector"] = fmt.Sprintf("kubernetes.io/hostname == '%s'", node)
		c.remark("spec.node", node, "nodes are chosen by labels: kubernetes.io/hostname is the name of the node, unless somebody changed it")
	}
	c.spec["advertise"] = []any{"Blocks", "Services"} // as much as the BGPConfiguration allows
	c.asNumber(spec, "localASNumber", "localASNumber")
	c.secret(spec, "password", "password")
	c.renamed(spec, "sourceAddress", "sourceAddress", map[string]string{"UseNodeIP": "NodeIP", "None": "None"})
	if keep, ok := spec["keepOriginalNextHop"].(bool); ok && keep {
		c.spec["nextHop"] = "Keep"
		delete(spec, "keepOriginalNextHop")
	}
	c.renamed(spec, "nextHopMode", "nextHop", map[string]string{"Auto": "Auto", "Self": "Self", "Keep": "Keep"})
	if n, ok := spec["numAllowedLocalASNumbers"].(int64); ok && n >= 0 && n <= 10 {
		c.spec["allowOwnAS"] = n
		delete(spec, "numAllowedLocalASNumbers")
	}
	if t, ok := take[string](spec, "maxRestartTime"); ok {
		c.spec["gracefulRestart"] = Object{"restartTime": t}
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

// secret converts where a password is.
func (c *conversion) secret(spec Object, from, to string) {
	at := of(spec, from)
	if ref := of(at, "secretKeyRef"); ref["name"] != nil && ref["key"] != nil {
		out := Object{}
		move(ref, out, "name", "key")
		c.spec[to] = out
		c.remark("spec."+from, out["name"], "the Secret must be in the namespace of the agents, which may read korat-bgp alone unless their Role names others")
		prune(at, "secretKeyRef")
		prune(spec, from)
	}
}

// prune removes an object of which nothing is left.
func prune(o Object, name string) {
	if v, is := o[name].(Object); is && len(v) == 0 {
		delete(o, name)
	}
}

// renamed converts a field with one of these values.
func (c *conversion) renamed(spec Object, from, to string, values map[string]string) {
	v, _ := spec[from].(string)
	if ours, known := values[v]; known {
		c.spec[to] = ours
		delete(spec, from)
	}
}

func (c *conversion) asNumber(spec Object, from, to string) {
	if n, ok := asn(spec[from]); ok {
		c.spec[to] = n
		delete(spec, from)
	} // else it is told as what is left
}

// asn reads a number that may be written 64512, "64512" or "1.10".
func asn(v any) (int64, bool) {
	high, low, dotted := strings.Cut(text(v), ".")
	if !dotted {
		high, low = "0", high
	}
	h, err1 := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 32)
	if err1 != nil || err2 != nil || dotted && l > 65535 {
		return 0, false
	}
	return int64(h<<16 | l), true
}
