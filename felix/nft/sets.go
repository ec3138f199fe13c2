package nft

import (
	"maps"
	"slices"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy/ir"
)

// fixed are the sets that rules of ours name whether or not the engine has told
// of them.
var fixed = []ir.SetID{desired.MasqueradeSet, desired.InsideSet, desired.ServicesSet, desired.EncryptedSet}

// sets keep the members of the sets that policies name, one set of the table for
// each family.
type sets struct {
	table *nftables.Table
	known map[ir.SetID]ir.SetKind // of those in the table
	// held are sets that are not written yet: before the first Resync all of them,
	// and then those that an earlier life of the agent left, until all is known.
	held      map[ir.SetID]*members
	inherited map[string]struct{} // by name in the table
	ready     bool                // Resync has told what is inherited
	complete  bool
	ours      map[ir.SetID]map[ir.Member]struct{} // members of the fixed sets
}

type members struct {
	kind ir.SetKind
	all  map[ir.Member]struct{}
}

func newSets(t *nftables.Table) *sets {
	return &sets{
		table: t, known: map[ir.SetID]ir.SetKind{}, held: map[ir.SetID]*members{},
		inherited: map[string]struct{}{}, ours: map[ir.SetID]map[ir.Member]struct{}{},
	}
}

func (s *sets) inherit(name string) { s.inherited[name] = struct{}{} }

// waits reports whether a set is held back.
func (s *sets) waits(id ir.SetID) bool {
	if !s.ready || s.complete {
		return !s.ready
	}
	for _, f := range bothFamilies {
		if _, ok := s.inherited[desired.SetName(id, f)]; ok {
			return true
		}
	}
	return false
}

// want takes in changes, and reports whether a fixed set came to have members or
// lost the last: no rules stand for nothing.
func (s *sets) want(d desired.Delta) (turned bool) {
	for id, c := range d.Sets {
		if slices.Contains(fixed, id) {
			before := s.any(id)
			if s.ours[id] == nil {
				s.ours[id] = map[ir.Member]struct{}{}
			}
			change(s.ours[id], c)
			turned = turned || s.any(id) != before
		}
		if s.waits(id) {
			s.hold(id, c)
		} else {
			s.write(id, c)
		}
	}
	return turned
}

// any reports whether a fixed set has members.
func (s *sets) any(id ir.SetID) bool { return len(s.ours[id]) > 0 }

// change applies c to members in memory.
func change(all map[ir.Member]struct{}, c *desired.SetChange) {
	if c.Gone || c.Whole {
		clear(all)
	}
	maps.Copy(all, c.Add)
	for m := range c.Del {
		delete(all, m)
	}
}

func (s *sets) hold(id ir.SetID, c *desired.SetChange) {
	if c.Gone {
		delete(s.held, id)
		return
	}
	if s.held[id] == nil {
		if !c.Whole {
			panic("bug: change of a set that was not sent whole before: " + string(id))
		}
		s.held[id] = &members{all: map[ir.Member]struct{}{}}
	}
	s.held[id].kind = c.Kind
	change(s.held[id].all, c)
}

// release writes the sets that need not wait any more.
func (s *sets) release(complete bool) {
	s.ready, s.complete = true, complete
	for id, m := range s.held {
		if !s.waits(id) {
			s.write(id, &desired.SetChange{Kind: m.kind, Whole: true, Add: m.all})
			delete(s.held, id)
		}
	}
	if complete {
		clear(s.inherited)
	}
}

// wantFixed makes the sets that our own rules name, if they are not there.
func (s *sets) wantFixed() {
	for _, id := range fixed {
		s.need(id)
	}
}

// need makes a set that our own rules name in some cases, if it is not there.
func (s *sets) need(id ir.SetID) {
	if _, ok := s.known[id]; !ok && !s.waits(id) {
		s.begin(id, ir.Nets)
	}
}

func (s *sets) begin(id ir.SetID, kind ir.SetKind) {
	s.known[id] = kind
	for _, f := range bothFamilies {
		key := []nftables.Field{addrField(f)}
		if kind == ir.AddrPorts {
			key = append(key, nftables.L4Proto, nftables.L4Port)
		}
		s.table.WantSet(nftables.Set{Name: desired.SetName(id, f), Key: key, Interval: kind == ir.Nets})
	}
}

// write brings a change into the table.
func (s *sets) write(id ir.SetID, c *desired.SetChange) {
	if c.Gone {
		delete(s.known, id)
		for _, f := range bothFamilies {
			s.table.UnwantSet(desired.SetName(id, f))
		}
		return
	}
	if _, ok := s.known[id]; !ok && !c.Whole {
		panic("bug: change of a set that was not sent whole before: " + string(id))
	}
	s.begin(id, c.Kind)
	for _, f := range bothFamilies {
		name := desired.SetName(id, f)
		if c.Whole {
			s.table.SetMembers(name, keys(c.Add, c.Kind, f)...)
			continue
		}
		s.table.UnwantMembers(name, keys(c.Del, c.Kind, f)...)
		s.table.WantMembers(name, keys(c.Add, c.Kind, f)...)
	}
}

// keys returns the members of one family.
func keys(all map[ir.Member]struct{}, kind ir.SetKind, f ir.Family) []nftables.Key {
	var out []nftables.Key
	for m := range all {
		if !f.Is(m.Prefix.Addr()) {
			continue
		}
		switch kind {
		case ir.Nets:
			out = append(out, nftables.Net(m.Prefix))
		case ir.AddrPorts:
			out = append(out, nftables.Join(nftables.Addr(m.Prefix.Addr()), nftables.Protocol(uint8(m.Protocol)), nftables.Port(m.Port)))
		default:
			out = append(out, nftables.Addr(m.Prefix.Addr()))
		}
	}
	return out
}
