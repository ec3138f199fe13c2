package iptables

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

var (
	_ apply.Reconciler = (*Firewall)(nil)
	_ apply.Gated      = (*Firewall)(nil)
	_ apply.Checker    = (*Firewall)(nil)
)

// restarted replaces the firewalls by new ones that know nothing.
func (w *world) restarted() {
	w.walls = nil
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		w.walls = append(w.walls, New(Config{Family: f, Flavour: w.flavour, Log: slog.New(slog.DiscardHandler)}))
	}
}

// resync reads the kernel back and mends what differs.
func (w *world) resync() {
	w.t.Helper()
	for _, f := range w.walls {
		w.host.Do(func() {
			if err := f.Resync(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			if err := f.Apply(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		})
	}
}

// check lets the firewalls look for foreign edits, and mend them.
func (w *world) check() {
	w.t.Helper()
	for _, f := range w.walls {
		w.host.Do(func() {
			changed, err := f.Check(w.t.Context())
			if err == nil && changed {
				err = f.Apply(w.t.Context())
			}
			if err != nil {
				w.t.Fatal(err)
			}
		})
	}
}

// saved prints raw and filter of both families without counters and comments.
func (w *world) saved(tables ...string) string {
	w.t.Helper()
	var out []string
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		for _, table := range tables {
			var chains, rules []string
			path, err := tool{f, w.flavour}.path("-save")
			if err != nil {
				w.t.Fatal(err)
			}
			// It warns of tables of the other flavour, in the middle of its output.
			for _, l := range strings.Split(w.host.Run("sh", "-c", path+" -t "+table+" 2>/dev/null"), "\n") {
				switch {
				case strings.HasPrefix(l, ":"):
					chains = append(chains, l[:strings.LastIndex(l, " ")])
				case !strings.HasPrefix(l, "#"):
					rules = append(rules, l)
				}
			}
			slices.Sort(chains)
			// The order of chains differs between the kernel's ways to list them; the
			// order of rules in a chain is kept.
			slices.SortStableFunc(rules, func(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) })
			out = append(append(append(out, fmt.Sprintf("IPv%d %s", f, table)), chains...), rules...)
		}
	}
	return strings.Join(out, "\n")
}

func chainOf(rule string) string {
	f := strings.Fields(rule)
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

// spy makes every start of the world's iptables-restore leave a line in a file,
// and run script after it when there is one. It returns how often it ran since.
func (w *world) spy(t *testing.T, script string) func() int {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		real, err := tool{f, w.flavour}.path("-restore")
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("#!/bin/sh\necho run >>%s\n%s \"$@\" || exit $?\n%s\n", log, real, script)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(real)), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() int {
		b, err := os.ReadFile(log)
		if err != nil {
			return 0
		}
		return strings.Count(string(b), "\n")
	}
}

// policed is open, but b takes only what its policy allows.
func (w *world) policed(rules ...ir.Rule) desired.Delta {
	d := w.open()
	id := knp("guard", policy.Ingress)
	e := d.Endpoints[w.sites["b"].iface]
	e.Ingress = ir.Chain{Tiers: []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id}, End: policy.Deny}}}
	d.Programs = map[ir.ProgramID]*ir.Program{id: {ID: id, Rules: rules}}
	return d
}

var allowTCP = ir.Rule{Action: policy.Allow, Protocol: policy.TCP}

func TestAnEqualKernelIsAdoptedWithoutAWrite(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.apply(w.policed(allowTCP))
		before := w.saved("raw", "filter")
		runs := w.spy(t, "")
		w.restarted()
		w.apply(desired.Delta{}) // nothing is known yet
		w.apply(w.policed(allowTCP))
		w.resync()
		if n := runs(); n != 0 {
			t.Errorf("%d writes to a kernel that was right", n)
		}
		if diff := gocmp.Diff(before, w.saved("raw", "filter")); diff != "" {
			t.Errorf("the kernel changed:\n%s", diff)
		}
	})
}

func TestUntilAllIsKnownTheEarlierLifesChainsStay(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.apply(w.policed(allowTCP))
		w.restarted()
		// The CNI journal tells of the pods, the API server has told nothing yet.
		early := w.policed()
		early.Complete = false
		for _, e := range early.Endpoints {
			e.Egress = ir.Chain{Default: policy.Deny}
		}
		w.apply(early)
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "b", is6, policy.TCP))
			w.expect(false, w.new("a", "b", is6, policy.UDP))
		}
		// A pod that comes now works as far as is known.
		w.attach("c", desired.HostInterface("test", "c"), addrs("10.1.0.4", "fd01::4"))
		w.sites["c"].wire = newWire(t, w.sites["c"].ns)
		c := w.endpoint("c")
		w.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{c.Interface: c}})
		s, m := w.new("c", "outside", false, policy.TCP), w.marker("a", "outside", false)
		got := map[string]map[key]bool{}
		w.sites["c"].transmit(s.packet)
		w.sites["a"].transmit(m.packet)
		w.await(m, got)
		if !got["outside"][s.key()] {
			t.Errorf("%s did not arrive", s)
		}
		// Then all is known, and holds.
		w.apply(desired.Delta{Complete: true})
		for _, is6 := range bothFamilies {
			w.expect(false, w.new("a", "b", is6, policy.TCP))
		}
	})
}

func TestAnotherAttachmentOfTheSameNameIsNotHeldBack(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.restarted()
		e := w.endpoint("a")
		e.Addrs = append(e.Addrs[:1:1], e.Addrs[1].Next())
		w.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{e.Interface: e}})
		if got := w.saved("filter"); !strings.Contains(got, "! -s "+e.Addrs[1].String()) {
			t.Errorf("the new address is not in:\n%s", got)
		}
	})
}

func TestNothingIsRemovedBeforeAllIsKnown(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.apply(w.policed(allowTCP))
		w.restarted()
		a, b := w.sites["a"].iface, w.sites["b"].iface
		w.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{a: w.endpoint("a"), b: nil}})
		guard := programChain(knp("guard", policy.Ingress))
		brief := w.endpoint("a") // comes and goes in this life
		brief.Interface = desired.HostInterface("test", "brief")
		w.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{brief.Interface: brief}})
		w.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{brief.Interface: nil}})
		gone := []string{fromPrefix + b, toPrefix + b, guard, fromPrefix + brief.Interface, toPrefix + brief.Interface}
		for _, name := range gone {
			if !strings.Contains(w.saved("filter"), ":"+name+" ") {
				t.Errorf("%s was removed too early", name)
			}
		}
		w.expect(true, w.new("a", "b", false, policy.TCP))
		w.apply(desired.Delta{Complete: true})
		for _, name := range gone {
			if strings.Contains(w.saved("filter"), name) {
				t.Errorf("%s was left behind", name)
			}
		}
	})
}

func TestForeignEditsOfOurRulesAreUndone(t *testing.T) {
	edits := map[string][]string{
		"a rule above our jump": {"-I", "FORWARD", "1", "-j", "ACCEPT"},
		"our jump twice":        {"-I", "FORWARD", "1", "-m", "mark", "!", "--mark", "0x1234567/0x0", "-j", forwardChain},
		"a rule in our chain":   {"-I", podToHostChain, "1", "-j", "ACCEPT"},
		"a rule behind ours":    {"-A", allowChain, "-j", "DROP"},
		"our chain emptied":     {"-F", fromPodChain},
		"a rule between ours":   {"-I", "FORWARD", "2", "-j", "ACCEPT"},
		"everything emptied":    {"-F"},
		"a jump we do not make": {"-A", "OUTPUT", "-m", "mark", "!", "--mark", "0x1234567/0x0", "-j", allowChain},
	}
	eachFlavour(t, func(t *testing.T, w *world) {
		want := w.saved("filter")
		for name, edit := range edits {
			for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
				w.iptables(f, "", edit...)
			}
			w.resync()
			got := w.saved("filter")
			if name == "a rule above our jump" || name == "a rule between ours" {
				if i, j := strings.Index(got, "-j "+forwardChain), strings.Index(got, "-A FORWARD -j ACCEPT"); i < 0 || j < i {
					t.Errorf("%s: our jump is not first:\n%s", name, got)
				}
				for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
					w.iptables(f, "", "-D", "FORWARD", "-j", "ACCEPT")
				}
				got = w.saved("filter")
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("%s: not as before:\n%s", name, diff)
			}
		}
	})
}

func TestAJumpThatSlipsBehindDuringOurWriteIsPutFirstAgain(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		// The other program puts its rule first once, right after our write.
		done := filepath.Join(t.TempDir(), "done")
		insert := func(name string) string { return fmt.Sprintf("%s-%s -I FORWARD 1 -j ACCEPT", name, w.flavour) }
		w.spy(t, fmt.Sprintf("test -e %s || { touch %[1]s; %s; %s; }", done, insert("iptables"), insert("ip6tables")))
		w.apply(w.policed(allowTCP))
		w.check() // legacy: looked at only from time to time
		got := w.saved("filter")
		if i, j := strings.Index(got, "-j "+forwardChain), strings.Index(got, "-A FORWARD -j ACCEPT"); i < 0 || j < i {
			t.Errorf("our jump is not first:\n%s", got)
		}
	})
}

// TestKilledAnywhereTheNextLifeConverges kills iptables-restore at random moments
// of random changes, and starts anew each time.
func TestKilledAnywhereTheNextLifeConverges(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for i := range 15 {
			rules := []ir.Rule{allowTCP}
			for p := range i {
				rules = append(rules, ir.Rule{Action: policy.Deny, Protocol: policy.UDP, DstPorts: []ir.PortRange{{First: uint16(p), Last: uint16(p)}}})
			}
			d := w.policed(rules...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(12000))*time.Microsecond)
			for _, f := range w.walls {
				f.Want(d)
				w.host.Do(func() { _ = f.Apply(ctx) }) // may or may not have made it
			}
			cancel()
			w.restarted()
			w.apply(d)
		}
		got := w.saved("raw", "filter")
		w.restarted()
		for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
			for _, table := range []string{"raw", "filter"} {
				w.iptables(f, "", "-t", table, "-F")
				w.iptables(f, "", "-t", table, "-X")
			}
		}
		var rules []ir.Rule
		rules = append(rules, allowTCP)
		for p := range 14 {
			rules = append(rules, ir.Rule{Action: policy.Deny, Protocol: policy.UDP, DstPorts: []ir.PortRange{{First: uint16(p), Last: uint16(p)}}})
		}
		w.apply(w.policed(rules...))
		if diff := gocmp.Diff(w.saved("raw", "filter"), got); diff != "" {
			t.Errorf("not what a fresh start makes (-fresh +killed):\n%s", diff)
		}
	})
}
