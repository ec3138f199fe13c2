package route_test

import (
	"flag"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
)

// TestMain makes histories fewer than rapid's default, because each is a hundred
// system calls; -rapid.checks overrides it.
func TestMain(m *testing.M) {
	flag.Set("rapid.checks", "25")
	flag.Parse()
	m.Run()
}

// form is a route in the notation of routes and as the kernel prints it.
type form struct{ notation, kernel string }

var historyForms = map[string][]form{
	"10.0.0.1/32": {
		{"dev kor1", "10.0.0.1/32 dev kor1 scope link"},
		{"dev kor2", "10.0.0.1/32 dev kor2 scope link"},
		{"via 192.0.2.2", "10.0.0.1/32 via 192.0.2.2"},
		{"via 192.0.2.2,192.0.2.130", "10.0.0.1/32 via 192.0.2.130,192.0.2.2"},
	},
	"10.0.0.0/26": {
		{"unreachable", "type 7 10.0.0.0/26"},
		{"via 192.0.2.2", "10.0.0.0/26 via 192.0.2.2"},
	},
	"fd00::1/128": {
		{"dev kor1", "fd00::1/128 dev kor1 metric 1024"},
		{"dev kor2", "fd00::1/128 dev kor2 metric 1024"},
		{"via 2001:db8::2", "fd00::1/128 via 2001:db8::2 metric 1024"},
		{"via 2001:db8::2,2001:db8::3", "fd00::1/128 via 2001:db8::2,2001:db8::3 metric 1024"},
	},
	"fd00::/122": {
		{"unreachable", "type 7 fd00::/122 metric 1024"},
		{"via 2001:db8::2", "fd00::/122 via 2001:db8::2 metric 1024"},
	},
}

// TestAnyHistoryEndsAsDesired mixes changes of what is wanted, foreign edits,
// flapping interfaces and restarts, and compares the kernel after every Apply.
func TestAnyHistoryEndsAsDesired(t *testing.T) {
	n := node(t)
	prefixes := slices.Sorted(maps.Keys(historyForms))
	rapid.Check(t, func(rt *rapid.T) {
		n.Try("ip", "route", "flush", "proto", "112")
		n.Try("ip", "-6", "route", "flush", "proto", "112")
		h := &history{Namespace: n, r: begin(t, n), wanted: map[string]form{}}
		h.r.Want(desired.Delta{Complete: true, Learned: true})
		prefix := rapid.SampledFrom(prefixes)
		actions := map[string]func(*rapid.T){
			"want": func(rt *rapid.T) {
				p := prefix.Draw(rt, "prefix")
				f := rapid.SampledFrom(historyForms[p]).Draw(rt, "form")
				h.wanted[p] = f
				h.r.Want(routes(t, p+" "+f.notation))
			},
			"unwant": func(rt *rapid.T) {
				p := prefix.Draw(rt, "prefix")
				delete(h.wanted, p)
				h.r.Want(routes(t, p+" gone"))
			},
			"delete": func(rt *rapid.T) {
				p := prefix.Draw(rt, "prefix")
				if _, err := n.Try("ip", "route", "del", p, "proto", "112"); err == nil {
					h.r.RouteChanged(netip.MustParsePrefix(p), desired.RouteProtocol)
				}
			},
			"flap": func(rt *rapid.T) {
				dev := rapid.SampledFrom([]string{"kor1", "kor2"}).Draw(rt, "dev")
				n.Down(dev)
				n.Up(dev)
				h.r.LinkChanged(dev)
			},
			"remake": func(rt *rapid.T) {
				n.Remove("kor1")
				kerneltest.Pod(n, "kor1")
				h.r.LinkChanged("kor1")
			},
			"restart": func(rt *rapid.T) { h.restart(t) },
			"apply":   func(rt *rapid.T) { h.applyAndCompare(rt) },
		}
		rt.Repeat(actions)
		h.applyAndCompare(rt)
		h.r.Close()
	})
}

type history struct {
	*kerneltest.Namespace
	r      *route.Reconciler
	wanted map[string]form
}

func (h *history) restart(t *testing.T) {
	h.r.Close()
	h.r = begin(t, h.Namespace)
	h.r.Want(desired.Delta{Complete: true, Learned: true})
	for p, f := range h.wanted {
		h.r.Want(routes(t, p+" "+f.notation))
	}
}

func (h *history) applyAndCompare(rt *rapid.T) {
	if err := h.r.Apply(rt.Context()); err != nil {
		rt.Fatalf("Apply: %v", err)
	}
	want := []string{}
	for _, f := range h.wanted {
		want = append(want, f.kernel)
	}
	slices.Sort(want)
	if got := h.Routes(desired.RouteProtocol); !slices.Equal(got, want) {
		rt.Fatalf("the kernel has\n%s\nwanted\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
