package flow

import (
	"container/list"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/flow/wire"
	"github.com/koratnet/korat/felix/kernel/nflog"
	"github.com/koratnet/korat/policy"
)

// key is what packets of one drop have in common. The source port is not in it:
// every attempt has another one.
type key struct {
	tag      string
	src, dst netip.Addr
	protocol policy.Protocol
	dstPort  uint16
	kind     [2]uint8 // of an ICMP message
	in, out  int
}

func keyOf(p nflog.Packet) key {
	return key{p.Prefix, p.Src, p.Dst, p.Protocol, p.DstPort, [2]uint8{p.Type, p.Code}, p.In, p.Out}
}

// record is a drop that is remembered.
type record struct {
	key     key
	drop    wire.Drop
	version uint64 // of the ring, when it changed last
	words   uint64 // version of the index in which the words were found
}

// ring remembers the drops that happened last, and counts.
type ring struct {
	max     int
	byKey   map[key]*list.Element
	order   *list.List // of *record, the last one first
	version uint64     // grows with every change
	evicted uint64
}

func newRing(size int) ring {
	return ring{max: size, byKey: map[key]*list.Element{}, order: list.New()}
}

// find returns the record of a packet like p, nil for none, and makes it the last.
func (r *ring) find(k key) *record {
	e := r.byKey[k]
	if e == nil {
		return nil
	}
	r.order.MoveToFront(e)
	return r.touch(e)
}

// add remembers a drop that is not there yet, and forgets the oldest for it.
func (r *ring) add(k key, d wire.Drop) *record {
	if len(r.byKey) >= r.max {
		oldest := r.order.Back()
		delete(r.byKey, oldest.Value.(*record).key)
		r.order.Remove(oldest)
		r.evicted++
	}
	e := r.order.PushFront(&record{key: k, drop: d})
	r.byKey[k] = e
	return r.touch(e)
}

func (r *ring) touch(e *list.Element) *record {
	r.version++
	rec := e.Value.(*record)
	rec.version = r.version
	return rec
}

// after returns the drops that changed since version, the one that changed last
// at the end.
func (r *ring) after(version uint64) []wire.Drop {
	var drops []wire.Drop
	for e := r.order.Front(); e != nil && e.Value.(*record).version > version; e = e.Next() {
		drops = append(drops, e.Value.(*record).drop)
	}
	slices.Reverse(drops)
	return drops
}
