package nflog_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nflog"
	"github.com/koratnet/korat/policy"
)

const group = 112

// open opens the group in ns.
func open(t *testing.T, ns *kerneltest.Namespace) *nflog.Socket {
	t.Helper()
	var s *nflog.Socket
	ns.Do(func() {
		var err error
		if s, err = nflog.Open(group); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { s.Close() })
	return s
}

// logAll makes a namespace tell of all packets that it sends, and drops them.
func logAll(ns *kerneltest.Namespace) {
	for _, tool := range []string{"iptables", "ip6tables"} {
		ns.Run(tool, "-A", "OUTPUT", "-j", "NFLOG", "--nflog-group", fmt.Sprint(group), "--nflog-prefix", "why "+tool)
		ns.Run(tool, "-A", "OUTPUT", "-j", "DROP")
	}
}

// send sends datagrams, which the firewall refuses.
func send(t *testing.T, ns *kerneltest.Namespace, to string, n int) {
	t.Helper()
	ns.Do(func() {
		c, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range n {
			_, _ = c.Write([]byte("x")) // EPERM
		}
	})
}

func read(t *testing.T, s *nflog.Socket) (all []nflog.Packet, missed uint64) {
	t.Helper()
	missed, err := s.Read(func(p nflog.Packet) { all = append(all, p) })
	if err != nil {
		t.Fatal(err)
	}
	return all, missed
}

func TestPacketsAreToldWithThePrefixOfTheRule(t *testing.T) {
	ns := kerneltest.New(t)
	logAll(ns)
	s := open(t, ns)
	for _, to := range []string{"127.0.0.1", "::1"} {
		send(t, ns, net.JoinHostPort(to, "4242"), 1)
		packets, _ := read(t, s)
		if len(packets) != 1 {
			t.Fatalf("%d packets, want 1", len(packets))
		}
		p := packets[0]
		lo := ns.Link("lo").Attrs().Index
		if !strings.HasPrefix(p.Prefix, "why ip") || p.Dst != netip.MustParseAddr(to) || p.Protocol != policy.UDP || p.DstPort != 4242 || p.SrcPort == 0 || p.Out != lo || p.In != 0 {
			t.Errorf("got %+v", p)
		}
		if name := s.InterfaceName(p.Out); name != "lo" {
			t.Errorf("interface is %q", name)
		}
	}
	if name := s.InterfaceName(9999); name != "" {
		t.Errorf("interface 9999 is %q", name)
	}
}

// TestAFloodIsCountedAndBlocksNobody sends far more than the buffer holds to a
// reader that does not read.
func TestAFloodIsCountedAndBlocksNobody(t *testing.T) {
	const n = 20_000
	ns := kerneltest.New(t)
	logAll(ns)
	s := open(t, ns)
	send(t, ns, "127.0.0.1:1", 1)
	read(t, s)
	send(t, ns, "127.0.0.1:2", n)
	send(t, ns, "127.0.0.1:3", 1) // the last one: its number tells how many were missed
	var told, missed uint64
	last := func() bool {
		packets, m := read(t, s)
		told, missed = told+uint64(len(packets)), missed+m
		return len(packets) > 0 && packets[len(packets)-1].DstPort == 3
	}
	for !last() {
		if told+missed > n { // the buffer was full when the last one came
			send(t, ns, "127.0.0.1:3", 1)
		}
	}
	if missed == 0 || told == 0 || told+missed < n+1 {
		t.Errorf("told %d, missed %d, want both and %d together", told, missed, n+1)
	}
	t.Logf("of %d packets %d were told", n, told)
}

func TestAGroupHasOneReader(t *testing.T) {
	ns := kerneltest.New(t)
	first := open(t, ns)
	ns.Do(func() {
		if _, err := nflog.Open(group); !errors.Is(err, nflog.ErrTaken) {
			t.Fatalf("second reader: %v, want ErrTaken", err)
		}
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, ns)
}

func TestCloseEndsRead(t *testing.T) {
	s := open(t, kerneltest.New(t))
	end := make(chan error)
	go func() {
		_, err := s.Read(func(nflog.Packet) {})
		end <- err
	}()
	s.Close()
	if err := <-end; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read ended with %v", err)
	}
}
