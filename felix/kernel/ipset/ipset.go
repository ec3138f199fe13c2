// Package ipset keeps the address sets that rules refer to, in the kernel's
// ipset: for each desired set one of IPv4, kor4-ID, and one of IPv6, kor6-ID.
// felix/apply calls it, through two reconcilers over the same Sets: Adder makes
// sets and changes members, before the rules that refer to them are written,
// and Remover destroys sets, after the rules that referred to them are gone.
//
// Ours are the sets whose names begin with kor4- or kor6-. Others are not
// touched, and their members are not even read.
//
// A set of one type cannot take the place of one of another while rules refer to
// it: the kernel neither swaps nor renames the two. It does not have to, because
// what a set is made of is part of its ID (compile.SetIDOf), and so of its name.
package ipset

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy/ir"
)

// Sets is what both reconcilers share.
type Sets struct {
	conn     *nlsock.Conn
	sets     map[string]*set // by kernel name; wanted, there or both
	complete bool
	writes   int // requests that change something, for tests
}

// New returns the Sets of the network namespace of the calling thread.
func New() (*Sets, error) {
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("sets: %w", err)
	}
	return &Sets{conn: conn, sets: map[string]*set{}}, nil
}

// Close closes the netlink socket.
func (s *Sets) Close() error { return s.conn.Close() }

// header is what a set is made with.
type header struct {
	kind        string // hash:ip, …
	family      uint8  // unix.AF_INET, …
	maxElements uint32
}

// maxElements is sixteen times the kernel's default, and more than the pods of
// any cluster. It costs nothing until it is used.
const maxElements = 1 << 20

// set is one set of one family.
type set struct {
	name   string
	wanted *header // nil: not wanted
	have   *header // nil: not there
	unread bool    // there, and its members are not known
	// members are tracked also while the set is not there: none are there then.
	members *delta.Tracker[ir.Member, struct{}]
	broad   map[ir.Member]struct{} // what is wanted of members that want looks at together
}

func newSet(name string) *set {
	s := &set{
		name: name, broad: map[ir.Member]struct{}{},
		members: delta.New[ir.Member](func(_, _ struct{}) bool { return true }),
	}
	// A set that is wanted is wanted as it is: members are never left for later.
	s.members.AllowRemoval(func(ir.Member, struct{}) bool { return s.wanted != nil })
	return s
}

var families = []ir.Family{ir.IPv4, ir.IPv6}

// ours reports whether a set of this name is Korat's.
func ours(name string) bool {
	return strings.HasPrefix(name, "kor4-") || strings.HasPrefix(name, "kor6-")
}

// temporary is the name under which a set is built that takes the place of
// another. No desired set has a name like it.
func temporary(name string) string { return name + "~" }

func headerOf(kind ir.SetKind, f ir.Family) *header {
	h := &header{family: unix.AF_INET, maxElements: maxElements}
	if f == ir.IPv6 {
		h.family = unix.AF_INET6
	}
	switch kind {
	case ir.Addrs:
		h.kind = "hash:ip"
	case ir.Nets:
		h.kind = "hash:net"
	case ir.AddrPorts:
		h.kind = "hash:ip,port"
	default:
		panic(fmt.Sprintf("bug: set of unknown kind %d", kind))
	}
	return h
}

// want takes in the changes of d.
func (s *Sets) want(d desired.Delta) {
	s.complete = s.complete || d.Complete
	for id, change := range d.Sets {
		for _, f := range families {
			s.wantOne(desired.SetName(id, f), f, change)
		}
	}
}

func (s *Sets) wantOne(name string, f ir.Family, c *desired.SetChange) {
	one := s.sets[name]
	if one == nil {
		one = newSet(name)
		s.sets[name] = one
	}
	if c.Gone {
		one.wanted = nil
		if one.have == nil {
			delete(s.sets, name)
		}
		return
	}
	if one.wanted == nil && !c.Whole {
		panic("bug: change of a set that was not sent whole before: " + name)
	}
	one.wanted = headerOf(c.Kind, f)
	one.change(c, f)
}

// resync reads back which sets are there. Members are read by the next Apply, of
// those sets that are wanted.
func (s *Sets) resync() error {
	there, err := s.list()
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for name := range there {
		if s.sets[name] == nil {
			s.sets[name] = newSet(name)
		}
	}
	for name, one := range s.sets {
		one.have = there[name]
		one.unread = one.have != nil
		one.members.Resync(func(func(ir.Member, struct{}) bool) {})
		if one.have == nil && one.wanted == nil {
			delete(s.sets, name)
		}
	}
	return nil
}
