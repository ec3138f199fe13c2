package nft

import (
	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
)

// clamp is the base chain that tells both ends of a TCP connection of a pod, when it
// begins, what the way takes as far as the kernel knows.
const clamp = "clamp-mss"

func clamping() nftables.Chain {
	const (
		flags, synRST, syn = 13, 0x06, 0x02
		optionMSS          = 2
	)
	begins := word{
		transport(flags, 1), mask([]byte{synRST}, []byte{0}), is(syn),
		&expr.Rt{Register: reg, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 2, Size: 2},
		// The kernel never makes it larger.
		&expr.Exthdr{SourceRegister: reg, Type: optionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	}
	var rules []nftables.Rule
	for _, of := range []word{fromPods(), toPods()} {
		rules = append(rules, rule(of, ofProtocol(policy.TCP), begins))
	}
	return filterChain(clamp, nftables.Forward, prioMangle, rules)
}
