// Package desiredtest folds deltas for tests: what a reader who applied every
// Delta so far believes is desired. Tests of felix/calc compare it with what
// should be desired, tests of reconcilers may use it to say what they expect.
package desiredtest

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// World is everything that is desired. The zero World desires nothing.
type World struct {
	Endpoints map[string]desired.Endpoint
	Hosts     map[string]desired.HostEndpoint
	Programs  map[ir.ProgramID]ir.Program
	Sets      map[ir.SetID]map[ir.Member]struct{}
	Routes    map[netip.Prefix]desired.Route
	Paths     map[desired.PathKey]bgp.Path
	Speaker   bgp.Config
	Closed    []bgp.Session
	Pools     []netip.Prefix
	Settings  desired.Settings
	Policies  map[policy.Key]desired.PolicyUse
	Tunnels   map[desired.TunnelKind]desired.TunnelDevice
	Peers     map[desired.TunnelEnd]desired.TunnelPeer
	Encrypted map[desired.EncryptedEnd]desired.EncryptedPeer
	Rules     map[desired.Rule]struct{}
	Ways      map[string]desired.PoolWays
	MTU       desired.MTU

	Complete, Learned bool
}

// Fold returns the world that the deltas make, applied in order. It keeps
// nothing of the deltas.
func Fold(deltas ...desired.Delta) World {
	var w World
	for _, d := range deltas {
		w.Apply(d)
	}
	return w
}

// Apply makes the world what d says. It keeps nothing of d's maps.
func (w *World) Apply(d desired.Delta) {
	apply(&w.Endpoints, d.Endpoints)
	apply(&w.Hosts, d.HostEndpoints)
	apply(&w.Programs, d.Programs)
	apply(&w.Routes, d.Routes)
	apply(&w.Paths, d.Paths)
	apply(&w.Policies, d.Policies)
	apply(&w.Tunnels, d.Tunnels)
	apply(&w.Peers, d.TunnelPeers)
	apply(&w.Encrypted, d.EncryptedPeers)
	apply(&w.Rules, d.Rules)
	apply(&w.Ways, d.Ways)
	for id, c := range d.Sets {
		w.changeSet(id, c)
	}
	if d.Speaker != nil {
		w.Speaker = *d.Speaker
	}
	if d.Closed != nil {
		w.Closed = *d.Closed
	}
	if d.Pools != nil {
		w.Pools = *d.Pools
	}
	if d.MTU != nil {
		w.MTU = *d.MTU
	}
	if d.Settings != nil {
		w.Settings = *d.Settings
	}
	w.Complete = w.Complete || d.Complete
	w.Learned = w.Learned || d.Learned
}

func apply[K comparable, V any](into *map[K]V, changes map[K]*V) {
	for k, v := range changes {
		if v == nil {
			delete(*into, k)
			continue
		}
		if *into == nil {
			*into = map[K]V{}
		}
		(*into)[k] = *v
	}
}

func (w *World) changeSet(id ir.SetID, c *desired.SetChange) {
	if c.Gone {
		delete(w.Sets, id)
		return
	}
	if w.Sets == nil {
		w.Sets = map[ir.SetID]map[ir.Member]struct{}{}
	}
	if w.Sets[id] == nil || c.Whole {
		w.Sets[id] = map[ir.Member]struct{}{}
	}
	maps.Copy(w.Sets[id], c.Add)
	for m := range c.Del {
		delete(w.Sets[id], m)
	}
}

// Redundant lists in words what d says although the world has it already, or
// about sets that do not exist. A delta that comes straight from the engine says
// nothing of the kind; a merged one may.
func (w *World) Redundant(d desired.Delta) []string {
	said := redundant(nil, "endpoint", w.Endpoints, d.Endpoints)
	said = redundant(said, "host endpoint", w.Hosts, d.HostEndpoints)
	said = redundant(said, "program", w.Programs, d.Programs)
	said = redundant(said, "route", w.Routes, d.Routes)
	said = redundant(said, "path", w.Paths, d.Paths)
	said = redundant(said, "policy", w.Policies, d.Policies)
	said = redundant(said, "tunnel", w.Tunnels, d.Tunnels)
	said = redundant(said, "tunnel peer", w.Peers, d.TunnelPeers)
	said = redundant(said, "encrypted peer", w.Encrypted, d.EncryptedPeers)
	said = redundant(said, "rule", w.Rules, d.Rules)
	said = redundant(said, "ways", w.Ways, d.Ways)
	for id, c := range d.Sets {
		said = w.redundantSet(said, id, c)
	}
	if d.Speaker != nil && d.Speaker.Equal(w.Speaker) {
		said = append(said, "speaker: as it was")
	}
	if d.Closed != nil && reflect.DeepEqual(*d.Closed, w.Closed) {
		said = append(said, "closed sessions: as they were")
	}
	if d.Pools != nil && reflect.DeepEqual(*d.Pools, w.Pools) {
		said = append(said, "pools: as they were")
	}
	if d.Settings != nil && d.Settings.Equal(w.Settings) {
		said = append(said, "settings: as they were")
	}
	if d.MTU != nil && *d.MTU == w.MTU {
		said = append(said, "MTU: as it was")
	}
	if d.Complete && w.Complete || d.Learned && w.Learned {
		said = append(said, "complete or learned: said before")
	}
	return said
}

func redundant[K comparable, V any](said []string, what string, have map[K]V, changes map[K]*V) []string {
	for k, v := range changes {
		old, there := have[k]
		switch {
		case v == nil && !there:
			said = append(said, fmt.Sprintf("%s %v: gone before", what, k))
		case v != nil && there && reflect.DeepEqual(old, *v):
			said = append(said, fmt.Sprintf("%s %v: as it was", what, k))
		}
	}
	return said
}

func (w *World) redundantSet(said []string, id ir.SetID, c *desired.SetChange) []string {
	have, there := w.Sets[id]
	switch {
	case c.Gone && !there:
		return append(said, fmt.Sprintf("set %s: gone before", id))
	case c.Gone:
		return said
	case c.Whole && there:
		return append(said, fmt.Sprintf("set %s: whole although it exists", id))
	case c.Whole:
		return said
	case !there:
		return append(said, fmt.Sprintf("set %s: changed but does not exist", id))
	case len(c.Add)+len(c.Del) == 0:
		return append(said, fmt.Sprintf("set %s: changed in nothing", id))
	}
	for m := range c.Add {
		if _, in := have[m]; in {
			said = append(said, fmt.Sprintf("set %s: %v added but is in", id, m.Prefix))
		}
	}
	for m := range c.Del {
		if _, in := have[m]; !in {
			said = append(said, fmt.Sprintf("set %s: %v removed but is not in", id, m.Prefix))
		}
	}
	return said
}
