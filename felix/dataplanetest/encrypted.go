package dataplanetest

import (
	"net/netip"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// neverInClear: a and rem0 are of pools whose packets never travel in clear, b and
// rem1 of others. Nothing between nodes has one of the first at an end; what stays on
// the node, and what goes to and comes from outside of the cluster, is not concerned.
func (w *world) neverInClear() {
	of := func(names ...string) *desired.SetChange {
		all := map[ir.Member]struct{}{}
		for _, name := range names {
			for _, a := range w.sites[name].addrs {
				all[ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
			}
		}
		return &desired.SetChange{Kind: ir.Nets, Whole: true, Add: all}
	}
	d := w.open()
	d.Sets = map[ir.SetID]*desired.SetChange{desired.InsideSet: of("a", "b", "c", "rem0", "rem1"), desired.EncryptedSet: of()}
	w.apply(d)
	ways := func(pairs ...[2]string) (shots []shot) {
		for _, p := range pairs {
			shots = append(shots, w.shot(p[0], p[1], false, policy.UDP, 80), w.shot(p[0], p[1], true, policy.UDP, 80))
		}
		return shots
	}
	never := [][2]string{{"rem0", "a"}, {"rem0", "b"}, {"rem1", "a"}, {"a", "rem0"}, {"b", "rem0"}, {"a", "rem1"}}
	always := [][2]string{{"a", "b"}, {"b", "a"}, {"rem1", "b"}, {"b", "rem1"}, {"out0", "a"}, {"a", "out0"}, {"a", "host"}, {"host", "a"}}
	w.all(true, ways(append(never, always...)...))
	closed := desired.Delta{Sets: map[ir.SetID]*desired.SetChange{desired.EncryptedSet: of("a", "rem0")}}
	w.apply(closed)
	w.all(false, ways(never...))
	w.all(true, ways(always...))
	w.apply(desired.Delta{Sets: map[ir.SetID]*desired.SetChange{desired.EncryptedSet: of()}})
	w.all(true, ways(never...))
}
