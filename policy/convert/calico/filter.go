package calico

import (
	"fmt"
	"net/netip"
)

// bgpFilter converts a filter. Rules of the two families, which are lists of their
// own there, are one list here, in which each has its family.
func (c *conversion) bgpFilter() {
	spec := of(c.in, "spec")
	for _, direction := range []string{"import", "export"} {
		rules := []any{}
		for _, family := range []string{"4", "6"} {
			name := direction + "V" + family
			list, _ := spec[name].([]any)
			for i, item := range list {
				if r, ok := item.(Object); ok {
					if out, ok := c.filterRule(fmt.Sprintf("spec.%s[%d]", name, i), "IPv"+family, r); ok {
						rules = append(rules, out)
					}
				}
			}
		}
		if len(rules) > 0 {
			c.spec[direction] = rules
		}
	}
}

// filterRule converts one rule, or reports false to leave it out.
func (c *conversion) filterRule(field, family string, r Object) (Object, bool) {
	out := Object{"family": family}
	move(r, out, "action")
	prefixes(r, out)
	for from, values := range map[string]map[string]string{
		"source": {"RemotePeers": "Learned"}, "peerType": {"eBGP": "EBGP", "iBGP": "IBGP"},
	} {
		if v, known := values[text(r[from])]; known {
			out[from] = v
			delete(r, from)
		}
	}
	if name, ok := take[string](r, "interface"); ok {
		out["interfaces"] = []any{name}
	}
	if values, ok := of(r, "communities")["values"].([]any); ok && len(values) > 0 {
		out["communities"] = values
		delete(of(r, "communities"), "values")
		prune(r, "communities")
	}
	if path, ok := asns(r["asPathPrefix"]); ok && len(path) > 0 {
		out["asPathPrefix"] = path
		delete(r, "asPathPrefix")
	}
	c.operations(field, r, out)
	switch {
	case len(r) == 0:
		return out, true
	case out["action"] == "Accept":
		c.lose(field, "", "the rule is left out, because without what is lost it would accept more")
		return nil, false
	}
	c.lose(field, "", "the rule rejects all that the rest of it matches, because of what is lost")
	delete(out, "set")
	out["action"] = "Reject"
	return out, true
}

// prefixes converts the range that a prefix is in, or not.
func prefixes(r, out Object) {
	cidr, err := netip.ParsePrefix(text(r["cidr"]))
	if err != nil {
		return
	}
	match, length := Object{"cidr": cidr.Masked().String()}, of(r, "prefixLength")
	operator := text(r["matchOperator"])
	switch operator {
	case "Equal", "NotEqual":
		if len(length) > 0 {
			return
		}
	case "In", "NotIn":
		match["minLength"] = int64(cidr.Bits())
		if n, ok := length["min"].(int64); ok && n >= int64(cidr.Bits()) { // a shorter one is in no such range
			match["minLength"] = n
			delete(length, "min")
		}
		if n, ok := length["max"].(int64); ok {
			match["maxLength"] = n
			delete(length, "max")
		}
	default:
		return
	}
	delete(r, "cidr")
	delete(r, "matchOperator")
	prune(r, "prefixLength")
	name := "prefixes"
	if operator == "NotEqual" || operator == "NotIn" {
		name = "notPrefixes"
	}
	out[name] = []any{match}
}

// operations converts what becomes of a route that is accepted. One that is lost is
// told, and the route accepted without it.
func (c *conversion) operations(field string, r, out Object) {
	list, ok := r["operations"].([]any)
	if !ok {
		return
	}
	var added, prepended []any
	for i, item := range list {
		op, _ := item.(Object)
		if v, ok := take[string](of(op, "addCommunity"), "value"); ok {
			added = append(added, v)
			prune(op, "addCommunity")
		}
		if path, ok := asns(of(op, "prependASPath")["prefix"]); ok && len(path) > 0 {
			prepended = append(path, prepended...) // the last comes before all others
			delete(of(op, "prependASPath"), "prefix")
			prune(op, "prependASPath")
		}
		if len(op) > 0 {
			c.lose(fmt.Sprintf("%s.operations[%d]", field, i), item, "routes have no priority in the kernel, and are accepted without it")
		}
	}
	set := Object{}
	if added != nil {
		set["addCommunities"] = added
	}
	if prepended != nil {
		set["prependASPath"] = prepended
	}
	if len(set) > 0 {
		out["set"] = set
	}
	delete(r, "operations")
}

// asns converts a list of AS numbers.
func asns(v any) (out []any, ok bool) {
	list, ok := v.([]any)
	for _, item := range list {
		n, good := asn(item)
		if ok = ok && good; ok {
			out = append(out, n)
		}
	}
	return out, ok
}
