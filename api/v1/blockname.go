package v1

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// BlockName is the name of the Block with this CIDR: the address with dashes
// and the prefix length, 10-244-0-64-26 or, with all groups written out,
// fd00-0010-0244-0000-0000-0000-0000-0000-122. Bits behind the prefix length
// do not count, so a CIDR has exactly one name. An invalid prefix is a bug of
// the caller and panics.
func BlockName(p netip.Prefix) string {
	if !p.IsValid() {
		panic("bug: block name of an invalid prefix")
	}
	addr := p.Masked().Addr()
	sep := "."
	if addr.Is6() {
		sep = ":"
		addr = addr.WithZone("")
	}
	return strings.ReplaceAll(addr.StringExpanded(), sep, "-") + "-" + strconv.Itoa(p.Bits())
}

// BlockPrefix is the CIDR of the Block with this name, the inverse of
// BlockName. It fails on every name that BlockName does not produce: other
// spellings of the same CIDR are no names of blocks, because then two nodes
// could claim it.
func BlockPrefix(name string) (netip.Prefix, error) {
	fields := strings.Split(name, "-")
	last := len(fields) - 1
	sep := "."
	if last == 8 {
		sep = ":"
	}
	p, err := netip.ParsePrefix(strings.Join(fields[:last], sep) + "/" + fields[last])
	if err != nil || BlockName(p) != name {
		return netip.Prefix{}, fmt.Errorf("block name %q: expected a CIDR in the form 10-244-0-64-26 or fd00-0010-0244-0000-0000-0000-0000-0000-122", name)
	}
	return p, nil
}
