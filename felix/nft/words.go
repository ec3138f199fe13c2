package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// This file holds the words that rules are made of. A word is a list of
// expressions that lets a packet on to the next word, or ends the rule.

type word = []expr.Any

// rule joins words.
func rule(words ...word) nftables.Rule {
	var all word
	for _, w := range words {
		all = append(all, w...)
	}
	return nftables.Rule{Exprs: all}
}

func commented(r nftables.Rule, comment string) nftables.Rule {
	r.Comment = comment
	return r
}

// The first register, and the four-byte words into which the kernel divides all
// of them: keys of several fields lie in consecutive words.
const (
	reg       = unix.NFT_REG_1
	firstWord = unix.NFT_REG32_00
)

// wordAt is the register that begins after so many bytes.
func wordAt(bytes int) uint32 { return firstWord + uint32(bytes)/4 }

func meta(key expr.MetaKey) expr.Any     { return &expr.Meta{Key: key, Register: reg} }
func is(data ...byte) expr.Any           { return compare(expr.CmpOpEq, data) }
func isNot(data ...byte) expr.Any        { return compare(expr.CmpOpNeq, data) }
func verdict(kind expr.VerdictKind) word { return word{&expr.Verdict{Kind: kind}} }
func jump(chain string) word             { return word{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

func goTo(chain string) word                   { return word{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}} }
func number(n uint32) []byte                   { return binary.NativeEndian.AppendUint32(nil, n) }
func compare(op expr.CmpOp, b []byte) expr.Any { return &expr.Cmp{Op: op, Register: reg, Data: b} }

var (
	accept = verdict(expr.VerdictAccept)
	drop   = verdict(expr.VerdictDrop)
	back   = verdict(expr.VerdictReturn)
)

// familyNumbers are those of the kernel (NFPROTO_…).
var familyNumbers = map[ir.Family]byte{ir.IPv4: unix.NFPROTO_IPV4, ir.IPv6: unix.NFPROTO_IPV6}

var bothFamilies = []ir.Family{ir.IPv4, ir.IPv6}

func ofFamily(f ir.Family) word         { return word{meta(expr.MetaKeyNFPROTO), is(familyNumbers[f])} }
func ofProtocol(p policy.Protocol) word { return word{meta(expr.MetaKeyL4PROTO), is(byte(p))} }

// in matches packets that came through an interface.
func in(name string) word {
	return word{meta(expr.MetaKeyIIFNAME), is([]byte(nftables.Interface(name))...)}
}

// out matches packets that are to leave by an interface. Where that is not known,
// because they are for the node itself, its name is empty.
func out(name string) word {
	return word{meta(expr.MetaKeyOIFNAME), is([]byte(nftables.Interface(name))...)}
}

// notOut matches packets that are to leave by another interface.
func notOut(name string) word {
	return word{meta(expr.MetaKeyOIFNAME), isNot([]byte(nftables.Interface(name))...)}
}

// fromPods and toPods match the interfaces of all pods, known and unknown.
func fromPods() word { return word{meta(expr.MetaKeyIIFNAME), is([]byte(desired.InterfacePrefix)...)} }

func toPods() word { return word{meta(expr.MetaKeyOIFNAME), is([]byte(desired.InterfacePrefix)...)} }

// bornHere matches packets of the node itself, where the interface they leave by
// is known.
func bornHere() word { return word{meta(expr.MetaKeyIIF), is(number(0)...)} }

// inState matches packets whose connection is in one of the states.
func inState(states uint32) word {
	return word{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, mask(number(states), number(0)), isNot(number(0)...),
	}
}

const established = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED

// mask keeps the bits of keep and flips those of flip.
func mask(keep, flip []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(keep)), Mask: keep, Xor: flip}
}

// marked matches packets with a bit of the mark, setMark sets and clears bits.
func marked(bit uint32) word {
	return word{meta(expr.MetaKeyMARK), mask(number(bit), number(0)), isNot(number(0)...)}
}

func setMark(set, clear uint32) word {
	return word{
		meta(expr.MetaKeyMARK), mask(number(^(set | clear)), number(set)),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg},
	}
}

// side is one end of a packet, by where the headers tell of it.
type side struct {
	addr4, addr6, port uint32
}

var (
	source      = side{12, 8, 0}
	destination = side{16, 24, 2}
)

// load reads from the network header or the transport header into a register.
func load(base expr.PayloadBase, offset, size, into uint32) expr.Any {
	return &expr.Payload{DestRegister: into, Base: base, Offset: offset, Len: size}
}

func transport(offset, size uint32) expr.Any {
	return load(expr.PayloadBaseTransportHeader, offset, size, reg)
}

// loadAddr loads the address, or as many bytes of it, into a register.
func (s side) loadAddr(f ir.Family, size int, into uint32) expr.Any {
	offset := s.addr4
	if f == ir.IPv6 {
		offset = s.addr6
	}
	return load(expr.PayloadBaseNetworkHeader, offset, uint32(size), into)
}

func addrSize(f ir.Family) int {
	if f == ir.IPv6 {
		return 16
	}
	return 4
}

// within matches packets whose end lies in a prefix, or with isNot does not.
func (s side) within(p netip.Prefix, op expr.CmpOp) word {
	f, bits := familyOf(p.Addr()), p.Bits()
	if bits == 0 { // callers do not ask for what lies in no address
		return nil
	}
	addr := p.Masked().Addr().AsSlice()
	if size := bits / 8; bits%8 == 0 {
		return word{s.loadAddr(f, size, reg), compare(op, addr[:size])}
	}
	keep := make([]byte, len(addr))
	for i := range bits {
		keep[i/8] |= 0x80 >> (i % 8)
	}
	return word{s.loadAddr(f, len(addr), reg), mask(keep, make([]byte, len(addr))), compare(op, addr)}
}

func familyOf(a netip.Addr) ir.Family {
	if a.Is4() {
		return ir.IPv4
	}
	return ir.IPv6
}

func lookup(set string, not bool) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: set, Invert: not}
}

// decide looks up the verdict of a map.
func decide(m string) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: m, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}
}

// inSet matches packets whose end is in a set of addresses.
func (s side) inSet(f ir.Family, set string, not bool) word {
	return word{s.loadAddr(f, addrSize(f), reg), lookup(set, not)}
}

// inPortSet matches packets whose end is in a set of addresses with protocol and
// port.
func (s side) inPortSet(f ir.Family, set string, not bool) word {
	n := addrSize(f)
	return word{
		s.loadAddr(f, n, reg),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: wordAt(n)},
		load(expr.PayloadBaseTransportHeader, s.port, 2, wordAt(n+4)),
		lookup(set, not),
	}
}

// at matches one port.
func (s side) at(port uint16) word { return word{transport(s.port, 2), is(port2(port)...)} }

// between matches a range of ports.
func (s side) between(r ir.PortRange) word {
	if r.First == r.Last {
		return s.at(r.First)
	}
	return word{transport(s.port, 2), compare(expr.CmpOpGte, port2(r.First)), compare(expr.CmpOpLte, port2(r.Last))}
}

func port2(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// message matches a message of ICMP or ICMPv6.
func message(m policy.Message, op expr.CmpOp) word {
	if m.Compare == policy.MessageType {
		return word{transport(0, 1), compare(op, []byte{m.Type})}
	}
	return word{transport(0, 2), compare(op, []byte{m.Type, m.Code})}
}
