package nlsock_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

func open(t *testing.T, n *kerneltest.Namespace) (c *nlsock.Conn) {
	t.Helper()
	n.Do(func() {
		var err error
		if c, err = nlsock.Open(unix.NETLINK_ROUTE); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// blackhole adds or deletes a route that needs nothing else.
func blackhole(kind, flags uint16, addr string) *nlsock.Request {
	header := []byte{unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, 112, unix.RT_SCOPE_UNIVERSE, unix.RTN_BLACKHOLE, 0, 0, 0, 0}
	return nlsock.NewRequest(kind, flags, header).Attr(unix.RTA_DST, netip.MustParseAddr(addr).AsSlice())
}

const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func TestEveryRequestOfABatchGetsItsAnswer(t *testing.T) {
	n := kerneltest.New(t)
	c := open(t, n)
	var requests []*nlsock.Request
	var want []error
	for i := range 2000 { // more than one message holds
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
		requests, want = append(requests, blackhole(unix.RTM_NEWROUTE, create, addr)), append(want, nil)
		if i%3 == 0 {
			requests, want = append(requests, blackhole(unix.RTM_NEWROUTE, create, addr)), append(want, unix.EEXIST)
		}
	}
	next := 0
	err := c.Batch(requests, func(i int, err error) {
		if i != next || !errors.Is(err, want[i]) {
			t.Fatalf("answer %d, expected %d: %v, not %v", i, next, err, want[i])
		}
		next++
	})
	if err != nil || next != len(requests) {
		t.Errorf("%d answers of %d: %v", next, len(requests), err)
	}
	if got := len(n.Routes(112)); got != 2000 {
		t.Errorf("%d routes", got)
	}
}

func TestAnErrorHasTheKernelsWords(t *testing.T) {
	c := open(t, kerneltest.New(t))
	err := c.Do(blackhole(unix.RTM_NEWROUTE, create, "10.0.0.1").Attr(unix.RTA_GATEWAY, []byte{1, 2, 3}))
	if err == nil || !strings.Contains(err.Error(), ": ") {
		t.Errorf("Do: %v", err)
	}
	if err := c.Do(blackhole(unix.RTM_DELROUTE, 0, "10.0.0.1")); !errors.Is(err, unix.ESRCH) {
		t.Errorf("delete what is not there: %v", err)
	}
	if err := c.Do(blackhole(unix.RTM_NEWROUTE, create, "10.0.0.1")); err != nil {
		t.Errorf("after errors: %v", err)
	}
}

func TestADumpTellsEverythingOnce(t *testing.T) {
	n := kerneltest.New(t)
	c := open(t, n)
	var requests []*nlsock.Request
	for i := range 3000 {
		requests = append(requests, blackhole(unix.RTM_NEWROUTE, create, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()))
	}
	if err := c.Batch(requests, func(_ int, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]int{}
	dump := nlsock.NewRequest(unix.RTM_GETROUTE, 0, []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, 112, 0, 0, 0, 0, 0, 0})
	err := c.Dump(dump, func() { clear(seen) }, func(kind uint16, body []byte) error {
		for attr, value := range nlsock.Attrs(body[unix.SizeofRtMsg:]) {
			if attr == unix.RTA_DST {
				a, _ := netip.AddrFromSlice(value)
				seen[a]++
			}
		}
		return nil
	})
	if err != nil || len(seen) != 3000 {
		t.Errorf("%d routes: %v", len(seen), err)
	}
	stop := errors.New("seen enough")
	if err := c.Dump(dump, func() {}, func(uint16, []byte) error { return stop }); err != stop {
		t.Errorf("Dump after visit failed: %v", err)
	}
	if err := c.Do(blackhole(unix.RTM_DELROUTE, 0, "10.0.0.1")); err != nil {
		t.Errorf("after a dump that was left early: %v", err)
	}
}

func TestLostAnswersAreAnErrorAndTheNextRequestWorks(t *testing.T) {
	c := open(t, kerneltest.New(t))
	if err := c.Shrink(); err != nil {
		t.Fatal(err)
	}
	var requests []*nlsock.Request
	for i := range 256 { // errors: what succeeds is mostly not answered to
		requests = append(requests, blackhole(unix.RTM_DELROUTE, 0, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()))
	}
	if err := c.Batch(requests, func(int, error) {}); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("Batch: %v", err)
	}
	if err := c.Do(blackhole(unix.RTM_NEWROUTE, create, "10.0.0.255")); err != nil {
		t.Errorf("the request after: %v", err)
	}
	if err := c.Do(blackhole(unix.RTM_DELROUTE, 0, "10.0.0.254")); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the request after that: %v", err)
	}
}

func TestRetryGoesOnWhileInterrupted(t *testing.T) {
	calls := 0
	got, err := nlsock.Retry(func() (int, error) {
		if calls++; calls < 3 {
			return 0, nl.ErrDumpInterrupted
		}
		return 7, nil
	})
	if got != 7 || err != nil || calls != 3 {
		t.Errorf("%d, %v after %d calls", got, err, calls)
	}
	if _, err := nlsock.Retry(func() (int, error) { return 0, nl.ErrDumpInterrupted }); !errors.Is(err, nl.ErrDumpInterrupted) {
		t.Errorf("in a storm: %v", err)
	}
}

func TestBrokenAttributesEndTheList(t *testing.T) {
	good := binary.NativeEndian.AppendUint16(nil, 8)
	good = append(binary.NativeEndian.AppendUint16(good, 3), 1, 2, 3, 4)
	for name, tail := range map[string][]byte{
		"short": {1}, "too small": {2, 0, 1, 0}, "too large": {200, 0, 1, 0, 0}, "none": nil,
	} {
		count := 0
		for kind, value := range nlsock.Attrs(append(good[:8:8], tail...)) {
			if count++; kind != 3 || len(value) != 4 {
				t.Errorf("%s: attribute %d, %v", name, kind, value)
			}
		}
		if count != 1 {
			t.Errorf("%s: %d attributes", name, count)
		}
	}
}
