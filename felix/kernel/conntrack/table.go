package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// table is the kernel's, of both families.
type table struct {
	conn *nlsock.Conn
	// unfiltered: the kernel does not filter; it is older than 5.8, or than 6.10
	// where it is to delete. We then read everything.
	unfiltered bool
	reads      int // dumps of everything, for tests
}

func open() (*table, error) {
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	return &table{conn: conn}, nil
}

// Up to how many addresses the kernel is asked about one by one. It walks through
// its whole table for each of their ends. In a table of 262,144 buckets, a walk that
// deletes takes 0.5, 4 and 120 ms of CPU with 100, 10,000 and 200,000 entries, one
// that lists 12, 15 and 100 ms, and to tell us of all of them 13, 50 and 840 ms.
const (
	fewToFlush = 4
	fewToList  = 2
)

// flush deletes the entries that have one of addrs at any of ends. It is safe to
// repeat.
func (t *table) flush(addrs map[netip.Addr]struct{}, ends ...end) error {
	if len(addrs) == 0 {
		return nil
	}
	if len(addrs) <= fewToFlush && !t.unfiltered {
		err := t.flushEach(addrs, ends)
		if !refused(err) {
			return err
		}
		t.unfiltered = true
	}
	_, err := t.purge(nil, func(e *entry) bool {
		return slices.ContainsFunc(ends, func(w end) bool {
			_, gone := addrs[w.at(e)]
			return gone
		})
	})
	return err
}

func (t *table) flushEach(addrs map[netip.Addr]struct{}, ends []end) error {
	var requests []*nlsock.Request
	for a := range addrs {
		for _, w := range ends {
			requests = append(requests, w.about(nlsock.NewRequest(deleteMessage, 0, header(nlsock.Family(a.Is6()))), a))
		}
	}
	return t.batch(requests)
}

// purge deletes the entries that doomed finds, and returns how many these were. It
// asks about all entries or, if addrs are few, about those which have one of them
// as source of either direction; doomed must not want others then. What doomed
// gets is valid only during the call.
func (t *table) purge(addrs map[netip.Addr]struct{}, doomed func(*entry) bool) (int, error) {
	var deletions []*nlsock.Request
	for _, list := range t.lists(addrs) {
		before := len(deletions)
		err := t.conn.Dump(list, func() { deletions = deletions[:before] }, func(_ uint16, body []byte) error {
			if e, ok := decode(body); ok && doomed(&e) {
				deletions = append(deletions, deletion(e))
			}
			return nil
		})
		if refused(err) && !t.unfiltered {
			t.unfiltered = true
			return t.purge(nil, doomed)
		}
		if err != nil {
			return 0, fmt.Errorf("list connections: %w", err)
		}
	}
	return len(deletions), t.batch(deletions)
}

// lists returns the questions that purge asks.
func (t *table) lists(addrs map[netip.Addr]struct{}) []*nlsock.Request {
	if len(addrs) == 0 || len(addrs) > fewToList || t.unfiltered {
		t.reads++
		return []*nlsock.Request{nlsock.NewRequest(getMessage, 0, header(unix.AF_UNSPEC))}
	}
	var lists []*nlsock.Request
	for a := range addrs {
		for _, w := range []end{origSource, replySource} {
			lists = append(lists, w.about(nlsock.NewRequest(getMessage, 0, header(nlsock.Family(a.Is6()))), a))
		}
	}
	return lists
}

// refused reports whether the kernel does not know how to filter.
func refused(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) }

// batch carries out deletions. What is gone already is fine.
func (t *table) batch(requests []*nlsock.Request) error {
	if len(requests) == 0 {
		return nil
	}
	failed := 0
	var first error
	err := t.conn.Batch(requests, func(_ int, err error) {
		if err == nil || errors.Is(err, unix.ENOENT) {
			return
		}
		if failed++; failed == 1 {
			first = err
		}
	})
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("delete connections: %d of %d requests, first %w", failed, len(requests), first))
	}
	return err
}
