package iptables

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

var (
	cases = flag.Int("cases", 60, "number of random cases per flavour and test")
	seed  = flag.Uint64("case", 0, "replay one rule set of the differential tests of rules")
)

// TestKernelAgreesWithEval loads random rule sets and sends real packets all
// ways: what arrives must be what policy/eval lets through.
func TestKernelAgreesWithEval(t *testing.T) {
	for _, flavour := range []Flavour{NFT, Legacy} {
		t.Run(string(flavour), func(t *testing.T) {
			oneCPU(t)
			w := newWorld(t, flavour)
			w.apply(w.open())
			w.openMarkers()
			w.compareMany("rule sets", w.compareRules)
		})
	}
}

// compareMany judges many random cases, or the one that -case names, and makes
// sure that they say something.
func (w *world) compareMany(what string, compare func(seed uint64) (passed, all int)) {
	w.t.Helper()
	if *seed != 0 {
		compare(*seed)
		return
	}
	passed, all := 0, 0
	for range *cases {
		p, n := compare(rand.Uint64())
		passed, all = passed+p, all+n
	}
	w.t.Logf("%d %s, %d packets, %d of them let through", *cases, what, all, passed)
	if passed < all/10 || passed > all*9/10 {
		w.t.Error("too few or too many were let through to say much")
	}
}

// compareRules judges one random rule set with packets and returns how many were
// expected to pass, of how many.
func (w *world) compareRules(seed uint64) (passed, all int) {
	w.t.Helper()
	if w.src > 65000 { // the case's source ports shall be a range
		w.src = 0
	}
	g := newGenerator(seed, w.src)
	w.loadSets(g.sets)
	d, chains := g.delta(w)
	w.apply(d)

	ev := &eval.Evaluator{
		Program: func(id ir.ProgramID) *ir.Program { return g.programs[id] },
		InSet:   g.sets.has, InPortSet: g.sets.hasPort,
	}
	var shots []shot
	var want []bool
	for _, way := range ways {
		for range shotsPerWay {
			is6 := g.IntN(2) == 0
			s := shot{way[0], way[1], w.fresh(way[0], way[1], is6, g.protocol(is6), g.port())}
			if s.proto.HasMessages() {
				m := g.message(s.proto)
				s.kind, s.code = m.Type, m.Code
			}
			path := eval.Path{From: chains[s.from], To: chains[s.to], FromOwnHost: s.from == "host"}
			shots, want = append(shots, s), append(want, ev.Path(path, s.packet.asked()).Action == policy.Allow)
		}
	}
	for i, arrived := range w.fire(shots) {
		if want[i] {
			passed++
		}
		if arrived != want[i] {
			text, _ := json.MarshalIndent(chains, "", " ")
			w.t.Fatalf("-case=%d: %s: arrived %v, eval says %v\nchains %s\nprograms %+v\nsets %v", seed, shots[i], arrived, want[i], text, g.programs, g.sets)
		}
	}
	return passed, len(shots)
}
