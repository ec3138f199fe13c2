package conntrack

import (
	"net/netip"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// members are those of one set, of any kind.
type members struct {
	all map[ir.Member]struct{}
	// lengths counts the prefixes of each length, so that an address is looked up
	// once for each that there is: IPv4 and IPv6.
	lengths [2][129]int
}

func newMembers() *members { return &members{all: map[ir.Member]struct{}{}} }

func (s *members) holds(m ir.Member) bool {
	_, is := s.all[m]
	return is
}

func (s *members) put(m ir.Member) {
	if !s.holds(m) {
		s.all[m] = struct{}{}
		s.lengths[six(m.Prefix.Addr())][m.Prefix.Bits()]++
	}
}

func (s *members) remove(m ir.Member) {
	if s.holds(m) {
		delete(s.all, m)
		s.lengths[six(m.Prefix.Addr())][m.Prefix.Bits()]--
	}
}

func six(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// has reports whether a is one of the addresses or lies in one of the nets. An
// unknown set, nil, has none.
func (s *members) has(a netip.Addr) bool {
	if s == nil {
		return false
	}
	for bits, n := range s.lengths[six(a)][:a.BitLen()+1] {
		if n == 0 {
			continue
		}
		if p, err := a.Prefix(bits); err == nil && s.holds(ir.Member{Prefix: p}) {
			return true
		}
	}
	return false
}

func (s *members) hasPort(a netip.Addr, protocol policy.Protocol, port uint16) bool {
	return s != nil && s.holds(ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: protocol, Port: port})
}
