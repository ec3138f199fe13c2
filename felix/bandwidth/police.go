package bandwidth

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nftables"
)

// way is a direction of packets, seen from the pod, by the name of its base chain
// and of its map.
type way string

const (
	sent     way = "sent"
	received way = "received"
)

var ways = []way{sent, received}

func (w way) chain(iface string) string { return string(w) + "-" + iface }

// limit wants that what is more than so many bits a second is dropped.
func (w way) limit(t *nftables.Table, iface string, bits uint64) {
	t.WantMap(w.dispatch())
	t.WantChain(nftables.Chain{Name: w.chain(iface), Rules: []nftables.Rule{{Exprs: []expr.Any{
		&expr.Limit{Type: expr.LimitTypePktBytes, Rate: bits / 8, Unit: expr.LimitTimeSecond, Burst: leastBurst, Over: true},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}}}})
	t.WantVerdict(string(w), nftables.Interface(iface), nftables.Goto(w.chain(iface)))
}

// lift wants no limit. The map stays wanted until enter is asked.
func (w way) lift(t *nftables.Table, iface string) {
	t.WantMap(w.dispatch())
	t.UnwantVerdict(string(w), nftables.Interface(iface))
	t.UnwantChain(w.chain(iface))
}

func (w way) dispatch() nftables.Map {
	return nftables.Map{Name: string(w), Key: []nftables.Field{nftables.IfName}}
}

// The places: what a pod sends counts before anybody looks at it, what it gets
// after everybody has let it pass.
const (
	first = -310
	last  = 310
)

// enter has packets come to the limits, or not when there are none: a base chain
// costs every packet something.
func (w way) enter(t *nftables.Table, wanted bool) {
	if !wanted {
		t.UnwantChain(string(w))
		t.UnwantMap(string(w))
		return
	}
	hook, name := nftables.Hook{Type: nftables.Filter, Number: nftables.Prerouting, Priority: first}, expr.MetaKeyIIFNAME
	if w == received {
		hook, name = nftables.Hook{Type: nftables.Filter, Number: nftables.Postrouting, Priority: last}, expr.MetaKeyOIFNAME
	}
	t.WantMap(w.dispatch())
	t.WantChain(nftables.Chain{
		Name: string(w), Base: &hook,
		Rules: []nftables.Rule{{Exprs: []expr.Any{
			&expr.Meta{Key: name, Register: unix.NFT_REG_1},
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: string(w), IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT},
		}}},
		Fallback: []nftables.Rule{{Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}},
	})
}

// leastBurst is how many bytes may come at once however low the limit is: some
// segments as the kernel hands them from one end of a veth to the other, 64 KB each.
// (A limit of nf_tables lets the bytes of one second pass at once besides, after as
// long a pause.)
const leastBurst = 256 << 10
