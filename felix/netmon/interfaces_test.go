package netmon_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/netmon"
)

func TestTheEngineHearsOfAddressesOfTheNode(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "eth0")
	kerneltest.Pod(n, "kor1")
	n.Run("ip", "addr", "add", "192.0.2.1/25", "dev", "eth0")
	n.Run("ip", "addr", "add", "192.0.2.200/32", "dev", "kor1")
	told, posts := map[string]string{}, 0
	var i *netmon.Interfaces
	n.Do(func() {
		var err error
		i, err = netmon.NewInterfaces(func(evs ...event.Event) {
			for _, ev := range evs {
				posts++
				delete(told, ev.Key.Name)
				if v, ok := ev.Value.(*event.LocalInterface); ok {
					told[ev.Key.Name] = texts(v.Addrs)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(i.Close)
	expect := func(want string) {
		t.Helper()
		delete(told, "lo")
		if diff := cmp.Diff(map[string]string{"eth0": want}, told); want != "" && diff != "" || want == "" && len(told) > 0 {
			t.Fatalf("told %v, want eth0 with %q", told, want)
		}
	}
	look := func(c netmon.Change) {
		t.Helper()
		if err := i.Look(c); err != nil {
			t.Fatal(err)
		}
	}
	look(netmon.Change{Lost: true})
	expect("192.0.2.1")
	before := posts
	look(netmon.Change{Lost: true})
	look(netmon.Change{Link: "kor1"})
	look(netmon.Change{Link: netmon.AllLinks})
	look(netmon.Change{Route: netip.MustParsePrefix("10.0.0.0/8")})
	if posts != before {
		t.Errorf("%d posts of nothing new", posts-before)
	}
	n.Run("ip", "addr", "add", "192.0.2.129/25", "dev", "eth0")
	n.Run("ip", "addr", "add", "fd00::1/64", "dev", "eth0", "nodad")
	look(netmon.Change{Link: "eth0"})
	expect("192.0.2.1 192.0.2.129 fd00::1")
	n.Run("ip", "addr", "flush", "dev", "eth0")
	look(netmon.Change{Link: "eth0"})
	expect("")
	n.Run("ip", "addr", "add", "192.0.2.1/25", "dev", "eth0")
	look(netmon.Change{Link: "eth0"})
	expect("192.0.2.1")
	n.Run("ip", "link", "del", "eth0")
	look(netmon.Change{Link: "eth0"})
	expect("")
	look(netmon.Change{Lost: true})
	expect("")
}

func texts(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}
