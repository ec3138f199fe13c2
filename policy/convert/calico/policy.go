package calico

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/koratnet/korat/policy"
)

// stagedPolicy converts a policy that is not enforced yet. Only one that would be
// added or changed is one here.
func (c *conversion) stagedPolicy() {
	spec := of(c.in, "spec")
	if action, _ := spec["stagedAction"].(string); action != "" && action != "Set" {
		c.whole("not converted: only policies with stagedAction Set are staged here; to see what a policy does by being gone, ask koratctl policy what-if --delete")
		delete(c.in, "spec")
		return
	}
	c.policy()
	c.spec["enforcement"] = "Staged"
}

// policy converts a NetworkPolicy or GlobalNetworkPolicy.
func (c *conversion) policy() {
	spec := of(c.in, "spec")
	good := c.labels("spec", spec, "selector")
	good = c.labels("spec", spec, "serviceAccountSelector") && good
	good = c.namespaces("spec", spec, "namespaceSelector") && good
	if !good {
		c.whole("not converted, because it would select others than it does")
		delete(c.in, "spec")
		return
	}
	if hints, ok := spec["performanceHints"]; ok {
		c.remark("spec.performanceHints", hints, "rules are not turned into anything that hints could help")
		delete(spec, "performanceHints")
	}
	move(spec, c.spec, "tier", "order", "selector", "types", "serviceAccountSelector", "namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward")
	for _, direction := range []string{"ingress", "egress"} {
		list, ok := spec[direction].([]any)
		if !ok {
			continue
		}
		rules := []any{}
		for i, item := range list {
			if r, ok := item.(Object); ok {
				if out, ok := c.rule(fmt.Sprintf("spec.%s[%d]", direction, i), r); ok {
					rules = append(rules, out)
				}
			}
		}
		if len(rules) > 0 {
			c.spec[direction] = rules
		}
		if len(rules) < len(list) && c.spec["types"] == nil {
			c.spec["types"] = types(spec)
		}
	}
}

// types are those that a policy has by its rules. They must be written when rules
// are left out, so that it goes on to isolate.
func types(spec Object) []any {
	in, _ := spec["ingress"].([]any)
	out, _ := spec["egress"].([]any)
	switch {
	case len(out) == 0:
		return []any{"Ingress"}
	case len(in) == 0:
		return []any{"Egress"}
	}
	return []any{"Ingress", "Egress"}
}

// rule converts one rule, or reports false to leave it out.
func (c *conversion) rule(field string, r Object) (Object, bool) {
	out := Object{}
	move(r, out, "action", "ipVersion", "icmp", "notICMP", "protocol", "notProtocol")
	for _, name := range []string{"protocol", "notProtocol"} {
		if s, ok := out[name].(string); ok {
			out[name] = protocol(s)
		}
	}
	if m := of(r, "metadata"); len(m) > 0 {
		c.remark(field+".metadata", m, "rules have no annotations here")
	}
	delete(r, "metadata")
	good := true
	for _, name := range []string{"source", "destination"} {
		e := of(r, name)
		end, ok := c.end(field+"."+name, e)
		if good = good && ok; len(end) > 0 {
			out[name] = end
		}
		if len(e) == 0 {
			delete(r, name)
		}
	}
	switch action := out["action"]; {
	case good && len(r) == 0:
		return out, true
	case action == "Allow" || action == "Log":
		c.lose(field, "", "the rule is left out, because without what is lost it would match more")
		return nil, false
	}
	out["action"] = "Deny"
	c.lose(field, "", "the rule denies all that the rest of it matches, because of what is lost")
	return out, true
}

// end converts the source or destination of a rule.
func (c *conversion) end(field string, e Object) (Object, bool) {
	out := Object{}
	good := c.labels(field, e, "selector")
	good = c.labels(field, e, "notSelector") && good
	good = c.namespaces(field, e, "namespaceSelector") && good
	if accounts := of(e, "serviceAccounts"); len(accounts) > 0 {
		good = c.labels(field+".serviceAccounts", accounts, "selector") && good
	}
	for _, name := range []string{"nets", "notNets"} {
		c.nets(field+"."+name, e, name)
	}
	move(e, out, "nets", "notNets", "selector", "notSelector", "namespaceSelector", "ports", "notPorts", "services", "serviceAccounts")
	return out, good
}

// nets brings a list of ranges to the one form that is accepted here.
func (c *conversion) nets(field string, o Object, name string) {
	list, ok := o[name].([]any)
	if !ok {
		return
	}
	for i, item := range list {
		list[i] = canonical(text(item))
	}
	if len(list) == 0 {
		delete(o, name)
		c.remark(field, "[]", "a list of nothing is no criterion")
	}
}

// canonical returns a range, or an address as a range of one, in canonical form.
func canonical(s string) string {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked().String()
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	return s
}

// ownLabels are those that Calico gives to endpoints, namespaces and service
// accounts. A name of a namespace has another label in Kubernetes; the others
// are nowhere here.
var ownLabels = regexp.MustCompile(`projectcalico\.org/[A-Za-z0-9_.-]+|\bpc(ns|sa)\.[A-Za-z0-9_./-]+`)

// labels checks a selector over endpoints or service accounts.
func (c *conversion) labels(field string, o Object, name string) bool {
	s, _ := o[name].(string)
	found := ownLabels.FindString(outsideQuotes(s))
	if found == "" {
		return true
	}
	c.lose(field+"."+name, s, fmt.Sprintf("label %s is Calico's own and exists on nothing here: say it by namespaceSelector or serviceAccountSelector", found))
	delete(o, name)
	return false
}

// namespaces checks a selector over namespaces, and calls the label of their
// names by its name in Kubernetes.
func (c *conversion) namespaces(field string, o Object, name string) bool {
	const theirs, ours = "projectcalico.org/name", "kubernetes.io/metadata.name"
	s, ok := o[name].(string)
	if !ok {
		return true
	}
	parts := quoted.Split(s, -1)
	values := append(quoted.FindAllString(s, -1), "")
	var b strings.Builder
	for i, part := range parts {
		b.WriteString(ownLabels.ReplaceAllStringFunc(part, func(label string) string {
			if label == theirs {
				return ours
			}
			return label
		}) + values[i])
	}
	if o[name] = b.String(); b.String() != s {
		c.remark(field+"."+name, s, "namespaces have their name in the label "+ours+", which is written instead")
	}
	return c.labels(field, o, name)
}

var quoted = regexp.MustCompile(`'[^']*'|"[^"]*"`)

// outsideQuotes returns a selector without its values.
func outsideQuotes(s string) string { return quoted.ReplaceAllString(s, "''") }

// protocol returns a protocol's name as it is written here.
func protocol(s string) string {
	for p := policy.Protocol(1); p != 0; p++ {
		if strings.EqualFold(s, p.String()) {
			return p.String()
		}
	}
	return s
}
