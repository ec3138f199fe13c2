// Package calico converts resources of Calico's API projectcalico.org/v3 to those
// of korat.dev/v1, field by field. A conversion takes out of an object what it
// converts; whatever is left is told, so that no field is dropped in silence.
//
// What cannot be converted is never made to let through more: a rule that allows
// is left out, one that denies or passes denies all that the rest of it matches.
//
// The package is pure.
package calico

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Object is any Kubernetes object, as JSON has it.
type Object = map[string]any

// Loss is something of an object that was not converted as it stands.
type Loss struct {
	Field string // path in the object; empty: the object as a whole
	Value string // as it stands there
	Words string // what became of it
	// Harmless says that nothing is different without it.
	Harmless bool
}

// Group is the API group and version of what can be converted.
const Group = "projectcalico.org/v3"

// Convert converts one object. The result is nil for an object that has no
// equivalent; o is not changed.
func Convert(o Object) (Object, []Loss) {
	c := &conversion{in: deepCopy(o).(Object), spec: Object{}}
	kind, _ := o["kind"].(string)
	known, ok := kinds[kind]
	if !ok {
		known = kindWords{words: "this kind is not understood"}
	}
	c.words = known.fields
	if known.convert == nil {
		c.whole(known.words)
	} else {
		known.convert(c)
	}
	c.metadata()
	delete(c.in, "apiVersion")
	delete(c.in, "kind")
	delete(c.in, "status")
	c.rest("", c.in)
	if c.dropped {
		return nil, c.losses
	}
	return Object{"apiVersion": "korat.dev/v1", "kind": known.kind, "metadata": c.meta, "spec": c.spec}, c.losses
}

// kindWords is what is known of a kind: to which of ours it is converted and how,
// or why not, and what is to be said of fields that are left.
type kindWords struct {
	kind    string
	convert func(*conversion)
	words   string
	fields  map[string]string
}

// kinds are all kinds of Calico. To understand another one is an entry here.
var kinds = map[string]kindWords{
	"NetworkPolicy":             {"NetworkPolicy", (*conversion).policy, "", nil},
	"GlobalNetworkPolicy":       {"GlobalNetworkPolicy", (*conversion).policy, "", nil},
	"StagedNetworkPolicy":       {"NetworkPolicy", (*conversion).stagedPolicy, "", nil},
	"StagedGlobalNetworkPolicy": {"GlobalNetworkPolicy", (*conversion).stagedPolicy, "", nil},
	"Tier":                      {"Tier", (*conversion).tier, "", nil},
	"NetworkSet":                {"NetworkSet", (*conversion).networkSet, "", nil},
	"GlobalNetworkSet":          {"GlobalNetworkSet", (*conversion).networkSet, "", nil},
	"HostEndpoint":              {"HostEndpoint", (*conversion).hostEndpoint, "", hostWords},
	"IPPool":                    {"IPPool", (*conversion).pool, "", nil},
	"BGPConfiguration":          {"BGPConfiguration", (*conversion).bgpConfiguration, "", bgpWords},
	"BGPPeer":                   {"BGPPeer", (*conversion).bgpPeer, "", peerWords},
	"BGPFilter":                 {"BGPFilter", (*conversion).bgpFilter, "", filterWords},

	"StagedKubernetesNetworkPolicy": {words: "not converted: ask koratctl policy what-if about the NetworkPolicy that it stands for"},
	"FelixConfiguration":            {words: "not converted: agents have flags, and few of them", fields: felixWords},
	"Profile":                       {words: "not converted: namespaces and service accounts have no rules of their own here"},
	"KubeControllersConfiguration":  {words: "not converted: the controller has nothing to configure"},
	"ClusterInformation":            {words: "not converted: it is Calico's own note about the cluster"},
	"IPAMConfiguration":             {words: "not converted: nodes claim blocks strictly, as many as they need"},
	"IPReservation":                 {words: "not converted: addresses cannot be reserved; leave their range out of the pools"},
	"CalicoNodeStatus":              {words: "not converted: see the status of NodeNetworks"},
	"BlockAffinity":                 {words: "not converted: nodes claim blocks anew"},
	"IPAMBlock":                     {words: "not converted: nodes claim blocks anew"},
	"IPAMHandle":                    {words: "not converted: nodes claim blocks anew"},
	"WorkloadEndpoint":              {words: "not converted: pods are endpoints by themselves"},
	"Node":                          {words: "not converted: agents write NodeNetworks by themselves"},
}

// conversion is one object on its way.
type conversion struct {
	in      Object // what is not converted yet
	meta    Object
	spec    Object // of the result
	words   map[string]string
	losses  []Loss
	dropped bool // there is no result
}

func (c *conversion) lose(field string, value any, words string) {
	c.losses = append(c.losses, Loss{Field: field, Value: text(value), Words: words})
}

func (c *conversion) remark(field string, value any, words string) {
	c.losses = append(c.losses, Loss{Field: field, Value: text(value), Words: words, Harmless: true})
}

// whole says that the object as a whole is not converted.
func (c *conversion) whole(words string) {
	c.dropped = true
	c.losses = append(c.losses, Loss{Words: words})
}

// move takes fields that mean the same here.
func move(from, to Object, names ...string) {
	for _, name := range names {
		if v, ok := from[name]; ok && v != nil {
			to[name] = v
		}
		delete(from, name)
	}
}

// take takes a field out of o.
func take[T any](o Object, name string) (T, bool) {
	v, ok := o[name].(T)
	if ok {
		delete(o, name)
	}
	return v, ok
}

// of returns a field that is an object, or an empty one.
func of(o Object, name string) Object {
	if v, ok := o[name].(Object); ok {
		return v
	}
	return Object{}
}

// metadata keeps what people write. What an API server writes is of no use in
// another object.
func (c *conversion) metadata() {
	in := of(c.in, "metadata")
	c.meta = Object{}
	move(in, c.meta, "name", "namespace", "labels", "annotations")
	if a, ok := c.meta["annotations"].(Object); ok {
		maps.DeleteFunc(a, func(name string, _ any) bool {
			return strings.HasPrefix(name, "projectcalico.org/") || name == "kubectl.kubernetes.io/last-applied-configuration"
		})
		if len(a) == 0 {
			delete(c.meta, "annotations")
		}
	}
	for _, name := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"} {
		delete(in, name)
	}
}

// harmless are values that say what holds here anyway.
var harmless = map[string]string{
	"spec.ipipMode": "Never", "spec.vxlanMode": "Never", "spec.disableBGPExport": "false",
	"spec.stagedAction": "Set", "spec.keepOriginalNextHop": "false", "spec.bindMode": "None", "spec.reversePeering": "Auto",
}

// rest tells of everything that nobody took.
func (c *conversion) rest(path string, v any) {
	switch v := v.(type) {
	case nil:
	case Object:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			c.rest(strings.TrimPrefix(path+"."+name, "."), v[name])
		}
	case []any:
		if !slices.ContainsFunc(v, func(item any) bool { _, is := item.(Object); return is }) {
			if len(v) > 0 {
				c.lose(path, v, c.say(path))
			}
			return
		}
		for i, item := range v {
			c.rest(fmt.Sprintf("%s[%d]", path, i), item)
		}
	default:
		if harmless[path] != text(v) {
			c.lose(path, v, c.say(path))
		}
	}
}

// say returns the words for a field of which nothing is left in the result: those
// of the longest path that is known, without the places in lists.
func (c *conversion) say(path string) string {
	best, words := "", "it has no equivalent here"
	for known, w := range c.words {
		if (path == known || strings.HasPrefix(path, known+".") || strings.HasPrefix(path, known+"[")) && len(known) > len(best) {
			best, words = known, w
		}
	}
	return words
}

// text returns a value as it is told.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}

func deepCopy(v any) any {
	switch v := v.(type) {
	case Object:
		out := Object{}
		for name, item := range v {
			out[name] = deepCopy(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = deepCopy(item)
		}
		return out
	}
	return v
}
