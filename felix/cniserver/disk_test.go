package cniserver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/ipam/journal"
)

func TestOnAFullDiskADDSaysSoAndLeavesNothing(t *testing.T) {
	a, c := newAgent(t), cni(t)
	a.stop()
	if err := unix.Mount("tmpfs", a.state, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(a.state, unix.MNT_DETACH) })
	a.start()
	stays := newSandbox(t, "c0", "stays")
	add(t, c, a.conf("1.0.0"), stays)
	ballast := filepath.Join(a.state, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	block := a.alloc.Usage()[0].CIDR
	for a.books.Claim(block, journal.Claim{Pool: "p"}) == nil { // until the journal's last page is full too
	}
	second := newSandbox(t, "c1", "web")
	_, err := c.AddNetworkList(t.Context(), a.conf("1.0.0"), second.rt)
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrIOFailure || !strings.Contains(e.Details, "no space left on device") {
		t.Fatalf("got %v, want code %d that names the reason", err, types.ErrIOFailure)
	}
	if len(a.held()) != 1 || len(a.books.State().Attachments) != 1 {
		t.Errorf("held %v, in the journal %v", a.held(), a.books.State().Attachments)
	}
	kerneltest.Eventually(t, "the pod has no eth0", func() bool {
		_, err := second.ns.LinkByName("eth0")
		return err != nil
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), stays.rt); err != nil {
		t.Errorf("DEL when there is room again: %v", err)
	}
	kerneltest.Eventually(t, "the veth is gone", func() bool {
		_, err := a.node.LinkByName(desired.HostInterface("shop", "stays"))
		return err != nil
	})
}
