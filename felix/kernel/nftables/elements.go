package nftables

import (
	"maps"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// readElements reads what is in a set or map that is wanted as it is there.
func (t *Table) readElements(s *set) error {
	r := t.request(unix.NFT_MSG_GETSETELEM).String(elementName, s.name)
	l := &listing{size: int(s.wanted.keyLen)}
	err := t.conn.Dump(r, func() { l = &listing{size: l.size, all: map[Key]Verdict{}} }, func(_ uint16, body []byte) error {
		for kind, value := range attrs(body) {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, element := range nlsock.Attrs(value) {
				l.element(element, s.cover != nil, s.kind == AMap)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.cover != nil {
		l.match()
	}
	s.elements.Resync(maps.All(l.all))
	s.unread, s.odd = false, l.odd
	return nil
}

// listing is what is known of a set while it is read.
type listing struct {
	size         int // of a key
	all          map[Key]Verdict
	firsts, ends []Key // of intervals
	odd          bool  // there is something that we would never write
}

func (l *listing) element(attributes []byte, interval, verdicts bool) {
	var k Key
	var v Verdict
	flags := uint32(0)
	for kind, value := range nlsock.Attrs(attributes) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			for kind, value := range nlsock.Attrs(value) {
				if kind == unix.NFTA_DATA_VALUE {
					k = Key(value)
				}
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = number(value)
		case unix.NFTA_SET_ELEM_DATA:
			v = verdictOf(value)
		case unix.NFTA_SET_ELEM_PAD:
		default: // a time-out, an expression: it may vanish, or not match
			l.odd = true
		}
	}
	switch {
	case len(k) != l.size || flags&^unix.NFT_SET_ELEM_INTERVAL_END != 0 || verdicts != (v != ""):
		l.odd = true
	case !interval:
		l.all[k] = v
	case flags == 0:
		l.firsts = append(l.firsts, k)
	default:
		l.ends = append(l.ends, k)
	}
}

// match makes prefixes of the ends of intervals. What is no prefix is odd.
func (l *listing) match() {
	slices.Sort(l.firsts)
	slices.Sort(l.ends)
	ends := l.ends
	if len(ends) > 0 && ends[0] == Key(make([]byte, l.size)) {
		ends = ends[1:] // nft marks the beginning of a set so; it ends no interval
	}
	for _, first := range l.firsts {
		end := Key("")
		if len(ends) > 0 {
			end, ends = ends[0], ends[1:]
		}
		k, ok := prefixOf(first, end)
		if !ok {
			l.odd = true
			return
		}
		l.all[k] = ""
	}
	l.odd = l.odd || len(ends) > 0
}

// prefixOf returns the prefix that begins with first and ends before end, "" is
// after all keys. Of a prefix the two differ by a power of two.
func prefixOf(first, end Key) (Key, bool) {
	f := spanOf(first + "\x00")
	var e span // what lies after all keys is zero, as far as it has digits
	if end != "" {
		e = spanOf(end + "\x00")
	}
	lo, borrow := bits.Sub64(e.lo, f.lo, 0)
	hi, _ := bits.Sub64(e.hi, f.hi, borrow)
	n := 0
	switch bits.OnesCount64(hi) + bits.OnesCount64(lo) {
	case 0: // everything
	case 1:
		if n = bits.LeadingZeros64(hi) + 1; hi == 0 {
			n = 64 + bits.LeadingZeros64(lo) + 1
		}
	default:
		return "", false
	}
	whole := f.cut(n)
	return first + Key([]byte{byte(n)}), whole.hi == f.hi && whole.lo == f.lo && (end == "" || end > first)
}
