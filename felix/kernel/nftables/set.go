package nftables

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
)

// header is what a set or map is made with: what cannot be changed later.
type header struct {
	keyType, keyLen, flags, dataType uint32
}

// verdictData is NFT_DATA_VERDICT: the data type of verdict maps.
const verdictData = 0xffffff00

func setHeader(fields []Field, interval bool) header {
	h := header{}
	for _, f := range fields {
		l, ok := layout[f]
		if !ok {
			panic(fmt.Sprintf("bug: key of unknown field %d", f))
		}
		size := l.size
		if len(fields) > 1 {
			size = (size + 3) &^ 3
		}
		h.keyType, h.keyLen = h.keyType<<6|l.magic, h.keyLen+size
	}
	if interval {
		if len(fields) != 1 {
			panic("bug: intervals of concatenations")
		}
		h.flags = unix.NFT_SET_INTERVAL
	}
	return h
}

func mapHeader(fields []Field) header {
	h := setHeader(fields, false)
	h.flags, h.dataType = unix.NFT_SET_MAP, verdictData
	return h
}

// set is one set or map of the table, wanted, there or both.
type set struct {
	name   string
	kind   Kind
	wanted *header // nil: not wanted
	have   *header // nil: not there
	table  *Table

	unread  bool // there, and what is in it is not known
	odd     bool // there, and something is in it that no member of ours is like
	refused bool // the set itself
	// elements are those in the kernel, tracked also while the set is not there:
	// none are there then. The verdicts of sets are empty.
	elements *delta.Tracker[Key, Verdict]
	cover    *cover           // of an Interval set: its members, of which elements are some
	bad      map[Key]struct{} // elements that were refused
	// suspects are elements of which some are refused: they are written so many at
	// a time, until it is known which.
	suspects map[Key]struct{}
	few      int
}

// forget makes s want nothing and know nothing of what is in it.
func (s *set) forget() {
	s.elements = delta.New[Key](func(a, b Verdict) bool { return a == b })
	// A set is wanted as it is. What a map says about keys that nobody has told of
	// yet may still be wanted.
	s.elements.AllowRemoval(func(Key, Verdict) bool { return s.kind == ASet || s.table.removal })
	s.cover, s.bad, s.suspects = nil, map[Key]struct{}{}, nil
	s.unread, s.odd, s.refused = s.have != nil, false, false
}

func (s *set) begin(kind Kind, h header) {
	s.forget()
	s.kind, s.wanted = kind, &h
	if h.flags&unix.NFT_SET_INTERVAL != 0 {
		s.cover = &cover{}
	}
}

func (s *set) end() {
	s.forget()
	s.wanted = nil
}

// want adds a member or makes v the verdict of k.
func (s *set) want(k Key, v Verdict) {
	s.check(k)
	if s.cover != nil {
		s.cover.add(k, s.shift)
		return
	}
	s.acquit(k)
	s.elements.Want(k, v)
}

func (s *set) unwant(k Key) {
	s.check(k)
	if s.cover != nil {
		s.cover.remove(k, s.shift)
		return
	}
	s.acquit(k)
	s.elements.Unwant(k)
}

// shift is told what the kernel is to get of the members of an Interval set.
func (s *set) shift(k Key, wanted bool) {
	s.acquit(k)
	if wanted {
		s.elements.Want(k, "")
	} else {
		s.elements.Unwant(k)
	}
}

// acquit forgets that k was refused.
func (s *set) acquit(k Key) {
	if _, bad := s.bad[k]; bad {
		delete(s.bad, k)
		delete(s.table.refused, Object{Kind: s.kind, Name: s.name, Key: k})
	}
}

// suspect says that a message about keys was refused, because of one of them.
func (s *set) suspect(keys []Key) {
	if s.suspects == nil {
		s.suspects = map[Key]struct{}{}
	}
	for _, k := range keys {
		s.suspects[k] = struct{}{}
	}
	s.few = max(1, len(keys)/8)
}

// replace makes all the members of a set.
func (s *set) replace(all []Key) {
	next := make(map[Key]struct{}, len(all))
	if s.cover != nil {
		s.cover = &cover{}
		for _, k := range all {
			s.check(k)
			s.cover.add(k, func(k Key, wanted bool) {
				if wanted {
					next[k] = struct{}{}
				} else {
					delete(next, k)
				}
			})
		}
	} else {
		for _, k := range all {
			s.check(k)
			next[k] = struct{}{}
		}
	}
	for k := range s.elements.AllWanted() {
		if _, still := next[k]; !still {
			s.elements.Unwant(k)
		}
	}
	for k := range s.bad {
		s.acquit(k)
	}
	for k := range next {
		s.elements.Want(k, "")
	}
}

// check panics when k cannot be a key of s.
func (s *set) check(k Key) {
	size := int(s.wanted.keyLen)
	if s.cover != nil {
		size++
	}
	if len(k) != size {
		panic(fmt.Sprintf("bug: key %s of %d bytes in %s, which has %d", k, len(k), s.name, size))
	}
}

// settled reports whether nothing has to be written.
func (s *set) settled(removal bool) bool {
	if s.wanted == nil {
		return s.have == nil || !removal || s.refused
	}
	if s.refused {
		return true
	}
	if s.have == nil || *s.have != *s.wanted || s.unread || s.odd {
		return false
	}
	for k := range s.elements.Pending() {
		if _, bad := s.bad[k]; !bad {
			return false
		}
	}
	return true
}
