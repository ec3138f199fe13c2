package owned

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy"
)

// Rules are the rules of policy routing of one protocol number. They are read and
// written over a socket of NETLINK_ROUTE that stays its owner's.
type Rules struct {
	Conn     *nlsock.Conn
	Protocol uint8
}

// AllPackets are the sources in rules for all packets, of each family.
var AllPackets = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// Read returns the rules that are there. A kernel without rules or without IPv6 has none.
func (k Rules) Read() (map[desired.Rule]struct{}, error) {
	all := map[desired.Rule]struct{}{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found := map[desired.Rule]struct{}{}
		err := k.Conn.Dump(nlsock.NewRequest(unix.RTM_GETRULE, 0, header(family, 0, 0)), func() { clear(found) }, func(kind uint16, body []byte) error {
			if r, ours := k.decode(kind, body); ours {
				found[r] = struct{}{}
			}
			return nil
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		for r := range found {
			all[r] = struct{}{}
		}
	}
	return all, nil
}

// Add makes r. That one of somebody else does the same is success.
func (k Rules) Add(r desired.Rule) error {
	err := k.Conn.Do(k.request(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule %d, %s: %w", r.Priority, r, err)
	}
	return nil
}

// Remove removes r. Absent is success.
func (k Rules) Remove(r desired.Rule) error {
	err := k.Conn.Do(k.request(unix.RTM_DELRULE, 0, r))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rule %d, %s: %w", r.Priority, r, err)
	}
	return nil
}

// ruleHeaderBytes is the size of struct fib_rule_hdr.
const ruleHeaderBytes = 12

func header(family, sourceBits, action uint8) []byte {
	return []byte{0: family, 2: sourceBits, 7: action, ruleHeaderBytes - 1: 0}
}

// local is the interface that what programs of the node send comes from, as rules see it.
const local = "lo"

func (k Rules) request(kind, flags uint16, r desired.Rule) *nlsock.Request {
	q := nlsock.NewRequest(kind, flags, header(nlsock.Family(r.From.Addr().Is6()), uint8(r.From.Bits()), action(r)))
	if r.From.Bits() > 0 {
		q.Attr(unix.FRA_SRC, r.From.Addr().AsSlice())
	}
	if r.Local {
		q.String(unix.FRA_IIFNAME, local)
	}
	if r.Mark != 0 {
		q.Uint32(unix.FRA_FWMARK, r.Mark)
	}
	if r.Protocol != 0 {
		q.Attr(unix.FRA_IP_PROTO, []byte{byte(r.Protocol)})
	}
	for attr, port := range map[uint16]uint16{unix.FRA_SPORT_RANGE: r.SourcePort, unix.FRA_DPORT_RANGE: r.DestinationPort} {
		if port != 0 { // struct fib_rule_port_range
			q.Attr(attr, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, port), port))
		}
	}
	if r.Table != 0 {
		q.Uint32(unix.FRA_TABLE, r.Table)
	}
	if r.Goto != 0 {
		q.Uint32(unix.FRA_GOTO, r.Goto)
	}
	return q.Uint32(unix.FRA_PRIORITY, r.Priority).Attr(unix.FRA_PROTOCOL, []byte{k.Protocol})
}

func action(r desired.Rule) uint8 {
	switch {
	case r.Table != 0:
		return unix.FR_ACT_TO_TBL
	case r.Goto != 0:
		return unix.FR_ACT_GOTO
	}
	return unix.FR_ACT_NOP
}

// decode reads one message of a dump.
func (k Rules) decode(kind uint16, body []byte) (r desired.Rule, ours bool) {
	if kind != unix.RTM_NEWRULE || len(body) < ruleHeaderBytes {
		return desired.Rule{}, false
	}
	source := nlsock.Unspecified(body[0])
	for attr, value := range nlsock.Attrs(body[ruleHeaderBytes:]) {
		switch attr {
		case unix.FRA_SRC:
			source, _ = netip.AddrFromSlice(value)
		case unix.FRA_IIFNAME:
			r.Local = nlsock.Text(value) == local
		case unix.FRA_FWMARK:
			r.Mark = binary.NativeEndian.Uint32(value)
		case unix.FRA_IP_PROTO:
			r.Protocol = policy.Protocol(value[0])
		case unix.FRA_SPORT_RANGE:
			r.SourcePort = binary.NativeEndian.Uint16(value)
		case unix.FRA_DPORT_RANGE:
			r.DestinationPort = binary.NativeEndian.Uint16(value)
		case unix.FRA_TABLE:
			r.Table = binary.NativeEndian.Uint32(value)
		case unix.FRA_GOTO:
			r.Goto = binary.NativeEndian.Uint32(value)
		case unix.FRA_PRIORITY:
			r.Priority = binary.NativeEndian.Uint32(value)
		case unix.FRA_PROTOCOL:
			ours = len(value) == 1 && value[0] == k.Protocol
		}
	}
	r.From = netip.PrefixFrom(source, int(body[2]))
	return r, ours
}
