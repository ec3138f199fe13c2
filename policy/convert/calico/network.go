package calico

import (
	"net/netip"
	"slices"

	"github.com/koratnet/korat/policy"
)

var hostWords = map[string]string{
	"spec.profiles": "there are no profiles: a direction of which no policy says anything is closed, so write policies first",
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

// pool converts a pool.
func (c *conversion) pool() {
	spec := of(c.in, "spec")
	if c.namespaces("spec", spec, "namespaceSelector") {
		move(spec, c.spec, "namespaceSelector")
	} else {
		c.spec["disabled"] = true // so that others do not get its addresses
	}
	c.renamed(spec, "assignmentMode", "assignment", map[string]string{"Automatic": "Automatic", "Manual": "Manual"})
	move(spec, c.spec, "blockSize", "nodeSelector", "natOutgoing")
	if disabled, ok := take[bool](spec, "disabled"); ok && c.spec["disabled"] == nil {
		c.spec["disabled"] = disabled
	}
	if cidr, ok := take[string](spec, "cidr"); ok {
		c.spec["cidr"] = canonical(cidr)
	}
	for name, kind := range map[string]string{"ipipMode": "IPIP", "vxlanMode": "VXLAN"} {
		switch mode, _ := spec[name].(string); mode {
		case "Always":
			c.spec["encapsulation"] = kind
			delete(spec, name)
		case "CrossSubnet":
			c.spec["encapsulation"] = kind + mode
			delete(spec, name)
		}
	}
	if quiet, ok := spec["disableBGPExport"].(bool); ok && quiet {
		c.spec["announce"] = "Disabled"
		delete(spec, "disableBGPExport")
	}
	c.uses(spec)
}

// uses converts what a pool is for.
func (c *conversion) uses(spec Object) {
	list, ok := spec["allowedUses"].([]any)
	if !ok {
		return
	}
	ours := map[any]string{"Workload": "Pods", "Tunnel": "Tunnel", "LoadBalancer": "LoadBalancer"}
	var uses, rest []any
	for _, use := range list {
		if name, known := ours[use]; known {
			uses = append(uses, name)
		} else {
			rest = append(rest, use)
		}
	}
	if len(uses) > 0 {
		c.spec["allowedUses"] = uses
	}
	if spec["allowedUses"] = rest; len(rest) == 0 {
		delete(spec, "allowedUses")
	}
}
