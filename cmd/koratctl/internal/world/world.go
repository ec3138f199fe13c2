// Package world builds the cluster that policy is asked about, an eval.Cluster,
// from objects: those of a live cluster, those of manifests, or both. What it
// cannot understand it tells, and leaves out.
//
// Manifests need not say everything. What a cluster would add is made up: the
// addresses of pods and nodes that have none, the namespaces that objects are
// in, the pods of workloads, and the endpoints of Services.
//
// The package does no I/O.
package world

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

// World is a cluster to ask about.
type World struct {
	Cluster  eval.Cluster
	Problems []Problem
	// Sources tells where each policy comes from.
	Sources map[policy.Key]manifest.Object
	// MadeUp are the addresses that no object names.
	MadeUp map[netip.Addr]bool
	// NoEndpoints are pods that policy does not apply to, with the reason, by
	// namespace/name.
	NoEndpoints map[string]NoEndpoint
	// Services tells which service has an address of its own.
	Services map[netip.Addr]string

	written map[string]bool // pods and nodes that stand in manifests
	selects []serviceSelector
}

// NoEndpoint is why policy does not apply to a pod.
type NoEndpoint struct {
	Why  string // "is on the host network"
	Node string // on whose network it is; empty: on none
}

// Severity says how bad a Problem is.
type Severity string

// The severities. An Error makes policy other than what was written. A Warning
// is probably not what was meant. A Note is nothing to worry about.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Note    Severity = "note"
)

// Problem is something that is wrong with an object.
type Problem struct {
	Severity Severity `json:"severity"`
	manifest.Place
	Object   string `json:"object"`
	Field    string `json:"field,omitempty"`
	Value    string `json:"value,omitempty"`
	Expected string `json:"expected,omitempty"`
	Effect   string `json:"effect,omitempty"`
}

// Serious returns the problems that are more than a note. It is never nil.
func Serious(problems []Problem) []Problem {
	out := []Problem{}
	for _, p := range problems {
		if p.Severity != Note {
			out = append(out, p)
		}
	}
	return out
}

// String returns the problem as a line without its severity.
func (p Problem) String() string {
	text := fmt.Sprintf("%s: %s", p.Place, p.Object)
	if p.Field != "" {
		text += ": " + p.Field
		if p.Value != "" {
			text += fmt.Sprintf(": %q", p.Value)
		}
	}
	switch {
	case p.Expected == "":
		return text + ": " + p.Effect
	case p.Effect == "":
		return text + ": expected " + p.Expected
	}
	return text + ": expected " + p.Expected + "; " + p.Effect
}

// defaultNamespace is where objects of manifests are that name no namespace.
const defaultNamespace = "default"

// Build makes the world of all objects. Where one stands twice the last counts.
func Build(objects []manifest.Object) *World {
	w := &World{
		Cluster: eval.Cluster{
			Namespaces: map[string]selector.Labels{},
			Accounts:   map[policy.ServiceName]selector.Labels{},
			Tiers:      policy.Tiers{},
			Rules:      desired.DefaultSettings().Rules(),
		},
		Sources:     map[policy.Key]manifest.Object{},
		MadeUp:      map[netip.Addr]bool{},
		NoEndpoints: map[string]NoEndpoint{},
		Services:    map[netip.Addr]string{},
		written:     map[string]bool{},
	}
	byKind := make([][]manifest.Object, len(Kinds))
	for _, o := range w.once(objects) {
		i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.APIVersion == o.APIVersion && k.Name == o.Kind })
		if i < 0 {
			severity, expected, effect := unknown(o)
			w.Problems = append(w.Problems, Problem{Severity: severity, Place: o.Place, Object: o.String(), Expected: expected, Effect: effect})
			continue
		}
		byKind[i] = append(byKind[i], o)
	}
	for i, list := range byKind {
		for _, o := range list {
			w.add(&Kinds[i], o)
		}
	}
	w.makeUp()
	return w
}

func (w *World) add(k *Kind, o manifest.Object) {
	if o.File != "" {
		w.written[o.String()] = true
		if k.Namespaced {
			w.impliedNamespace(o.Namespace)
		}
	}
	for _, p := range k.add(w, o) {
		w.report(Error, o, p)
	}
}

func (w *World) report(s Severity, o manifest.Object, p convert.Problem) {
	w.Problems = append(w.Problems, Problem{s, o.Place, o.String(), p.Field, p.Value, p.Expected, p.Effect})
}

// once gives objects of manifests a namespace where they need one, and leaves
// each object once.
func (w *World) once(objects []manifest.Object) []manifest.Object {
	var out []manifest.Object
	at := map[string]int{}
	for _, o := range objects {
		o = Placed(o)
		id := ID(o)
		i, twice := at[id]
		if !twice {
			at[id] = len(out)
			out = append(out, o)
			continue
		}
		w.report(Warning, o, convert.Problem{Effect: "it stands also in " + out[i].Place.String() + "; this one counts"})
		out[i] = o
	}
	return out
}

// Placed returns o in the namespace where it is: that which it names, or the
// default where its kind needs one, or none where its kind has none.
func Placed(o manifest.Object) manifest.Object {
	switch k := kindOf(o); {
	case k == nil:
	case !k.Namespaced:
		o.Namespace = ""
	case o.Namespace == "":
		o.Namespace = defaultNamespace
	}
	return o
}

// ID identifies an object: its group, kind, namespace and name.
func ID(o manifest.Object) string { return o.Group() + " " + o.String() }
