package route

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// TestAChangedWayIsToldThoughAnotherCannotBeAskedFor: in whatever order they are
// asked for. The kernel does not take the name of the interface of one hop.
func TestAChangedWayIsToldThoughAnotherCannotBeAskedFor(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "eth0")
	n.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	var conn *nlsock.Conn
	n.Do(func() {
		var err error
		if conn, err = nlsock.Open(unix.NETLINK_ROUTE); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { conn.Close() })
	moved := netip.MustParseAddr("192.0.2.7")
	broken := netip.MustParseAddr("fe80::1%a-name-that-is-too-long-for-an-interface")
	for range 20 {
		h := hops{conn: conn, links: newLinks(conn), stale: true, known: map[netip.Addr]way{
			moved: {[]netip.Addr{netip.MustParseAddr("192.0.2.254")}}, broken: {},
		}}
		changed, err := h.again()
		if err == nil {
			t.Fatal("the broken hop was asked for without an error")
		}
		if !changed[moved] || !h.stale {
			t.Fatalf("changed %v, to be asked again %v; want the one that moved, and true", changed, h.stale)
		}
	}
}
