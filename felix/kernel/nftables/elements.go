package nftables

import (
	"maps"
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
		case unix.NFTA_SET_ELEM_USERDATA, unix.NFTA_SET_ELEM_PAD: // a comment
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
	for i, first := range l.firsts {
		for len(ends) > 0 && ends[0] <= first {
			// nft marks the beginning of a set by an end at zero, of no interval; it
			// does not matter.
			l.odd = l.odd || i == 0 && ends[0] != Key(make([]byte, l.size))
			ends = ends[1:]
		}
		k, ok := Key(""), false
		if len(ends) == 0 {
			k, ok = prefixOf(first, "")
		} else {
			k, ok = prefixOf(first, ends[0])
			ends = ends[1:]
		}
		if !ok {
			l.odd = true
			continue
		}
		l.all[k] = ""
	}
	l.odd = l.odd || len(ends) > 0
}

// prefixOf returns the prefix that begins with first and ends before end, "" is
// after all keys.
func prefixOf(first, end Key) (Key, bool) {
	for n := len(first) * 8; n >= 0; n-- {
		k := first + Key([]byte{byte(n)})
		if f, e, open := ends(k); f == first && (open && end == "" || !open && e == end) {
			return k, first == spanOf(k).cut(n).key(len(first))[:len(first)]
		}
	}
	return "", false
}
