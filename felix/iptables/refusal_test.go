package iptables

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func TestARefusedPolicyClosesItsEndpointAndNoOther(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.policed(ir.Rule{Action: policy.Allow, SrcSets: []ir.SetID{"nosuchset"}})
		a, b := w.sites["a"].iface, w.sites["b"].iface
		id := knp("other", policy.Ingress)
		d.Endpoints[a].Ingress = ir.Chain{Tiers: []ir.Tier{{Programs: []ir.ProgramID{id}, End: policy.Deny}}}
		d.Programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{allowTCP}}
		for _, f := range w.walls {
			f.Want(d)
			w.host.Do(func() {
				if err := f.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "nosuchset") {
					t.Errorf("%s: Apply says %v", f.Name(), err)
				}
			})
			closed := f.Closed()
			if closed[b] == nil || closed[a] != nil {
				t.Errorf("%s: closed: %v", f.Name(), closed)
			}
		}
		for _, is6 := range bothFamilies {
			w.expect(false, w.new("a", "b", is6, policy.TCP))
			w.expect(true, w.new("b", "a", is6, policy.TCP))
			w.expect(false, w.new("b", "a", is6, policy.UDP))
		}
		w.host.Run("ipset", "create", desired.SetName("nosuchset", ir.IPv4), "hash:ip", "family", "inet")
		w.host.Run("ipset", "create", desired.SetName("nosuchset", ir.IPv6), "hash:ip", "family", "inet6")
		w.host.Run("ipset", "add", desired.SetName("nosuchset", ir.IPv4), "10.1.0.2")
		w.resync()
		w.expect(true, w.new("a", "b", false, policy.TCP))
		for _, f := range w.walls {
			if closed := f.Closed(); len(closed) != 0 {
				t.Errorf("%s: still closed: %v", f.Name(), closed)
			}
		}
	})
}

// TestARefusalWithoutALineIsFound has rules that the parser takes and the kernel
// does not: rpfilter is not for the filter table. Legacy then names no line.
func TestARefusalWithoutALineIsFound(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		f := w.walls[0]
		bad := map[string]bool{}
		for i := range 20 {
			name := programChain(knp(fmt.Sprint("p", i), policy.Egress))
			spec := "-j ACCEPT"
			if i%7 == 3 {
				spec, bad[name] = "-m rpfilter --invert -j ACCEPT", true
			}
			f.filter.set(newChain(name, specs(spec)))
		}
		w.host.Do(func() {
			if err := f.Apply(t.Context()); err == nil {
				t.Error("no error")
			}
		})
		out := w.iptables(f.cfg.Family, "-save", "-t", "filter")
		for i := range 20 {
			name := programChain(knp(fmt.Sprint("p", i), policy.Egress))
			want := "-j ACCEPT"
			if bad[name] {
				want = "-j DROP"
			}
			if got := rulesOf(out, name); len(got) != 1 || !strings.HasSuffix(got[0], want) {
				t.Errorf("chain %d: got %v, want %s", i, got, want)
			}
		}
	})
}

func TestTheKernelTakesEveryShapeOfRule(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		types := map[string]string{"e": "hash:ip,port", "f": "hash:ip,port", "g": "hash:ip,port", "h": "hash:ip,port"}
		for _, id := range []ir.SetID{"a", "b", "c", "d", "e", "f", "g", "h", "s1", "s2"} {
			kind := cmp.Or(types[string(id)], "hash:ip")
			w.host.Run("ipset", "create", desired.SetName(id, ir.IPv4), kind, "family", "inet")
			w.host.Run("ipset", "create", desired.SetName(id, ir.IPv6), kind, "family", "inet6")
		}
		d := w.open()
		d.Programs = map[ir.ProgramID]*ir.Program{}
		tier := ir.Tier{End: policy.Deny}
		for i, c := range policyRules {
			id := knp(fmt.Sprint("shape", i), policy.Ingress)
			d.Programs[id] = &ir.Program{ID: id, Rules: []ir.Rule{c.rule}}
			tier.Programs = append(tier.Programs, id)
		}
		d.Endpoints[w.sites["b"].iface].Ingress = ir.Chain{Tiers: []ir.Tier{tier}}
		w.apply(d)
	})
}

func rulesOf(saved, chain string) []string {
	var rules []string
	for _, l := range strings.Split(saved, "\n") {
		if strings.HasPrefix(l, "-A "+chain+" ") {
			rules = append(rules, l)
		}
	}
	return rules
}

func TestAChainThatOthersJumpToIsKeptAndTold(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.apply(w.policed(allowTCP))
		b := w.sites["b"].iface
		f := w.walls[0]
		w.iptables(f.cfg.Family, "", "-N", "theirs")
		w.iptables(f.cfg.Family, "", "-A", "theirs", "-j", toPrefix+b)
		f.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{b: nil}})
		w.host.Do(func() {
			if err := f.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), toPrefix+b) || strings.Contains(err.Error(), ingressPrefix) {
				t.Errorf("Apply says %v", err)
			}
		})
		if out := w.saved("filter"); strings.Contains(out[:strings.Index(out, "IPv6")], ":"+fromPrefix+b) {
			t.Error("what can be removed was not")
		}
		w.iptables(f.cfg.Family, "", "-F", "theirs")
		w.resync()
	})
}

// TestRulesThatIptablesCannotPrintDoNotHoldUsBack: others may put rules into the
// tables of iptables that only nft has words for.
func TestRulesThatIptablesCannotPrintDoNotHoldUsBack(t *testing.T) {
	oneCPU(t)
	w := newWorld(t, NFT)
	w.apply(w.open())
	w.openMarkers()
	for name, chain := range map[string]string{"ip": "FORWARD", "ip6": "INPUT"} {
		w.host.Run("nft", fmt.Sprintf("add rule %s filter %s numgen inc mod 2 vmap { 0 : continue }", name, chain))
	}
	before := w.host.Run("nft", "list", "ruleset")
	w.apply(w.policed(allowTCP))
	w.resync()
	for _, is6 := range bothFamilies {
		w.expect(true, w.new("a", "b", is6, policy.TCP))
		w.expect(false, w.new("a", "b", is6, policy.UDP))
	}
	after := w.host.Run("nft", "list", "ruleset")
	if want := strings.Count(before, "numgen"); want != 2 || strings.Count(after, "numgen") != want {
		t.Errorf("the others' rules were touched:\n%s", after)
	}
}

func TestWhileTheLockIsHeldNothingHangsAndThenItConverges(t *testing.T) {
	oneCPU(t)
	w := newWorld(t, Legacy)
	lock := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	held, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	f := w.walls[0]
	f.Want(w.open())
	w.host.Do(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := f.Apply(ctx); err == nil {
			t.Error("Apply went past the lock")
		}
	})
	if len(f.Closed()) != 2 {
		t.Errorf("closed: %v, want both pods", f.Closed())
	}
	held.Close()
	w.apply(w.open())
}

func TestABadInterfaceNameIsClosedAndTold(t *testing.T) {
	f := New(Config{Family: ir.IPv4, Flavour: NFT})
	for _, name := range []string{"kor+", "eth0", "kor1 -j ACCEPT", "kor0123456789abc"} {
		f.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{name: {Interface: name}}})
		if f.Closed()[name] == nil {
			t.Errorf("%q is not closed", name)
		}
	}
}

func TestBeforeTheFirstApplyEveryEndpointIsClosed(t *testing.T) {
	f := New(Config{Family: ir.IPv4, Flavour: NFT})
	f.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": {Interface: "kor1"}}})
	if f.Closed()["kor1"] == nil {
		t.Error("open")
	}
}
