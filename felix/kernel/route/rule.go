package route

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// The priorities of our rules: before that of the main table, 32766, and behind those
// that people add without naming any, which the kernel puts before all that are there.
const (
	first  = 32112 // to the table that our routes belong to
	behind = 32113 // to one that they belonged to
)

// rule is one of policy routing that sends every packet to a table. Ours have the
// protocol number of our routes.
type rule struct{ table, priority uint32 }

// families are those that have rules of their own.
var families = []uint8{unix.AF_INET, unix.AF_INET6}

// lead makes the rules as they are wanted. What comes is there before anything goes.
func (r *Reconciler) lead() error {
	var errs []error
	for _, family := range families {
		have := r.rules[family]
		want := r.wantedRules(have)
		missing := false
		for w := range want {
			if _, there := have[w]; there {
				continue
			}
			err := r.conn.Do(w.request(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, family))
			switch {
			case family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT):
				continue // a kernel without IPv6 has no routes of it either
			case err != nil && !errors.Is(err, unix.EEXIST): // another one's that does the same
				missing = true
				errs = append(errs, fmt.Errorf("add rule %d to table %d: %w", w.priority, w.table, err))
				continue
			}
			have[w] = struct{}{}
		}
		for h := range have {
			if _, wanted := want[h]; wanted || missing {
				continue
			}
			err := r.conn.Do(h.request(unix.RTM_DELRULE, 0, family))
			if err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove rule %d to table %d: %w", h.priority, h.table, err))
				continue
			}
			delete(have, h)
		}
	}
	return errors.Join(errs...)
}

// readRules reads our rules.
func (r *Reconciler) readRules() error {
	for _, family := range families {
		found := map[rule]struct{}{}
		err := r.conn.Dump(nlsock.NewRequest(unix.RTM_GETRULE, 0, ruleHeader(family, 0)), func() { clear(found) }, func(kind uint16, body []byte) error {
			if one, ours := decodeRule(kind, body); ours {
				found[one] = struct{}{}
			}
			return nil
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("read rules: %w", err)
		}
		r.rules[family] = found
	}
	return nil
}

// ruleHeader makes a struct fib_rule_hdr, which has the layout of struct rtmsg.
func ruleHeader(family, action uint8) []byte {
	return bytesOf(&unix.RtMsg{Family: family, Type: action})
}

func (l rule) request(kind, flags uint16, family uint8) *nlsock.Request {
	return nlsock.NewRequest(kind, flags, ruleHeader(family, unix.FR_ACT_TO_TBL)).
		Uint32(unix.FRA_TABLE, l.table).
		Uint32(unix.FRA_PRIORITY, l.priority).
		Attr(unix.FRA_PROTOCOL, []byte{desired.RouteProtocol})
}

// decodeRule reads one message of a dump.
func decodeRule(kind uint16, body []byte) (l rule, ours bool) {
	if kind != unix.RTM_NEWRULE || len(body) < unix.SizeofRtMsg {
		return rule{}, false
	}
	for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.FRA_TABLE:
			l.table = binary.NativeEndian.Uint32(value)
		case unix.FRA_PRIORITY:
			l.priority = binary.NativeEndian.Uint32(value)
		case unix.FRA_PROTOCOL:
			ours = len(value) == 1 && value[0] == desired.RouteProtocol
		}
	}
	return l, ours
}
