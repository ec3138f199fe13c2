package cniserver_test

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
)

// A tunnel's own address is in the journal, and its device is no pod's: that was told
// as a fault of every node with a tunnel.
func TestAnAuditFindsNoFaultWithTheAddressOfATunnel(t *testing.T) {
	a := newAgent(t)
	addrs, err := a.alloc.Assign(t.Context(), ipam.TunnelHandle("vxlan4-korat"), ipam.Request{})
	if err != nil {
		t.Fatal(err)
	}
	attach := func(h ipam.Handle, device string, addrs ...netip.Addr) {
		if _, err := a.books.Attach(journal.Attachment{Handle: h, HostInterface: device, Addrs: addrs}); err != nil {
			t.Fatal(err)
		}
	}
	attach(ipam.TunnelHandle("vxlan4-korat"), "vxlan4-korat", addrs...)
	books, err := a.server.Audit()
	if found := books.Problems(); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	attach(ipam.Handle{Namespace: "shop", Pod: "web", Sandbox: "c1"}, "korweb", addrs...)
	books, err = a.server.Audit()
	if found := books.Problems(); err != nil || len(found) != 2 {
		t.Errorf("a pod without an interface has the same address: %v, %v", found, err)
	}
}
