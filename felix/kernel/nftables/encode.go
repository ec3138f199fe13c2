package nftables

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// putExpr adds an expression to a rule. What most rules consist of is written
// here, byte by byte as the library does it, but without its twenty allocations
// for each: with 50,000 rules they cost more than the kernel. The library writes
// the rest.
func putExpr(r *nlsock.Request, e expr.Any) error {
	switch e := e.(type) {
	case *expr.Meta:
		named(r, "meta", func() {
			putUint32(r, unix.NFTA_META_KEY, uint32(e.Key))
			register(r, e.SourceRegister, unix.NFTA_META_SREG, unix.NFTA_META_DREG, e.Register)
		})
	case *expr.Cmp:
		named(r, "cmp", func() {
			putUint32(r, unix.NFTA_CMP_SREG, e.Register)
			putUint32(r, unix.NFTA_CMP_OP, uint32(e.Op))
			r.Nest(unix.NFTA_CMP_DATA|nlsock.NestedFlag, func() { r.Attr(unix.NFTA_DATA_VALUE, e.Data) })
		})
	case *expr.Payload:
		if e.OperationType == expr.PayloadWrite || e.CsumType > 0 {
			return putAny(r, e)
		}
		named(r, "payload", func() {
			putUint32(r, unix.NFTA_PAYLOAD_DREG, e.DestRegister)
			putUint32(r, unix.NFTA_PAYLOAD_BASE, uint32(e.Base))
			putUint32(r, unix.NFTA_PAYLOAD_OFFSET, e.Offset)
			putUint32(r, unix.NFTA_PAYLOAD_LEN, e.Len)
		})
	case *expr.Lookup:
		named(r, "lookup", func() { putLookup(r, e) })
	case *expr.Bitwise:
		named(r, "bitwise", func() {
			putUint32(r, unix.NFTA_BITWISE_SREG, e.SourceRegister)
			putUint32(r, unix.NFTA_BITWISE_DREG, e.DestRegister)
			putUint32(r, unix.NFTA_BITWISE_LEN, e.Len)
			r.Nest(unix.NFTA_BITWISE_MASK|nlsock.NestedFlag, func() { r.Attr(unix.NFTA_DATA_VALUE, e.Mask) })
			r.Nest(unix.NFTA_BITWISE_XOR|nlsock.NestedFlag, func() { r.Attr(unix.NFTA_DATA_VALUE, e.Xor) })
		})
	case *expr.Verdict:
		named(r, "immediate", func() {
			putUint32(r, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			r.Nest(unix.NFTA_IMMEDIATE_DATA|nlsock.NestedFlag, func() { putCode(r, e.Kind, e.Chain) })
		})
	case *expr.Counter:
		named(r, "counter", func() {
			putUint64(r, unix.NFTA_COUNTER_BYTES, e.Bytes)
			putUint64(r, unix.NFTA_COUNTER_PACKETS, e.Packets)
		})
	case *expr.Masq:
		if !e.ToPorts {
			return putAny(r, e)
		}
		named(r, "masq", func() { putMasqToPorts(r, e) })
	default:
		return putAny(r, e)
	}
	return nil
}

// putMasqToPorts writes the flags too, which the library leaves out: without them
// the kernel keeps the port.
func putMasqToPorts(r *nlsock.Request, e *expr.Masq) {
	flags := uint32(unix.NF_NAT_RANGE_PROTO_SPECIFIED)
	for flag, set := range map[uint32]bool{
		unix.NF_NAT_RANGE_PROTO_RANDOM: e.Random, unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY: e.FullyRandom, unix.NF_NAT_RANGE_PERSISTENT: e.Persistent,
	} {
		if set {
			flags |= flag
		}
	}
	putUint32(r, unix.NFTA_MASQ_FLAGS, flags)
	putUint32(r, unix.NFTA_MASQ_REG_PROTO_MIN, e.RegProtoMin)
	putUint32(r, unix.NFTA_MASQ_REG_PROTO_MAX, e.RegProtoMax)
}

// putAny has the library write an expression.
func putAny(r *nlsock.Request, e expr.Any) error {
	b, err := expr.Marshal(unix.NFPROTO_INET, e)
	if err != nil {
		return err
	}
	r.Attr(unix.NFTA_LIST_ELEM|nlsock.NestedFlag, b)
	return nil
}

// named adds an expression of this name, with the attributes that fill adds.
func named(r *nlsock.Request, name string, fill func()) {
	r.Nest(unix.NFTA_LIST_ELEM|nlsock.NestedFlag, func() {
		r.String(unix.NFTA_EXPR_NAME, name)
		r.Nest(unix.NFTA_EXPR_DATA|nlsock.NestedFlag, fill)
	})
}

func putLookup(r *nlsock.Request, e *expr.Lookup) {
	if e.SourceRegister != 0 {
		putUint32(r, unix.NFTA_LOOKUP_SREG, e.SourceRegister)
	}
	if e.IsDestRegSet {
		putUint32(r, unix.NFTA_LOOKUP_DREG, e.DestRegister)
	}
	if e.Invert {
		putUint32(r, unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
	}
	r.String(unix.NFTA_LOOKUP_SET, e.SetName)
	putUint32(r, unix.NFTA_LOOKUP_SET_ID, e.SetID)
}

// register adds the register that is read from, or the one that is written to.
func register(r *nlsock.Request, source bool, from, to uint16, v uint32) {
	if source {
		to = from
	}
	putUint32(r, to, v)
}

// putCode adds a verdict as data.
func putCode(r *nlsock.Request, code expr.VerdictKind, chain string) {
	r.Nest(unix.NFTA_DATA_VERDICT|nlsock.NestedFlag, func() {
		putUint32(r, unix.NFTA_VERDICT_CODE, uint32(code))
		if chain != "" {
			r.String(unix.NFTA_VERDICT_CHAIN, chain)
		}
	})
}

func putUint32(r *nlsock.Request, kind uint16, v uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	r.Attr(kind, b[:])
}

func putUint64(r *nlsock.Request, kind uint16, v uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	r.Attr(kind, b[:])
}
