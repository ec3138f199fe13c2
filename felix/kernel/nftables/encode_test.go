package nftables

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

func TestExpressionsAreWrittenAsTheLibraryDoes(t *testing.T) {
	for i, e := range []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 2, SourceRegister: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{6}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("kor12345\x00")},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 1, Len: 1},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 1, Len: 1, CsumType: 1, CsumOffset: 10},
		&expr.Lookup{SourceRegister: 1, SetName: "nets"},
		&expr.Lookup{SourceRegister: 9, SetName: "to", IsDestRegSet: true},
		&expr.Lookup{SourceRegister: 1, SetName: "nets", Invert: true},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0, 0, 0, 6}, Xor: []byte{0, 0, 0, 0}},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
		&expr.Verdict{Kind: expr.VerdictAccept},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: "policy"},
		&expr.Counter{},
		&expr.Counter{Bytes: 7, Packets: 8},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Notrack{},
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: 112, Data: []byte("korat")},
	} {
		t.Run(fmt.Sprintf("%d %T", i, e), func(t *testing.T) {
			var want, got nlsock.Messages
			b, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				t.Fatal(err)
			}
			want.Begin(0, 0, nil).Attr(unix.NFTA_LIST_ELEM|nlsock.NestedFlag, b)
			if err := putExpr(got.Begin(0, 0, nil), e); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Bytes(), got.Bytes()); diff != "" {
				t.Error("(-library +ours):\n" + diff)
			}
		})
	}
}
