package route_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
)

// where is a place for all routes.
type where struct{ table, metric uint32 }

func (w where) String() string { return fmt.Sprintf("table %d metric %d", w.table, w.metric) }

var wheres = []where{{desired.MainTable, 0}, {desired.MainTable, 50}, {200, 0}, {300, 50}, {70_000, 2_000}}

// into says that routes belong to w.
func into(w where, d desired.Delta) desired.Delta {
	s := desired.DefaultSettings()
	s.RouteTable, s.RouteMetric = w.table, w.metric
	d.Settings = &s
	return d
}

// told is what a running agent knows: all.
func told(d desired.Delta) desired.Delta {
	d.Complete, d.Learned = true, true
	return d
}

// covered has a route to a pod and two that would take its packets elsewhere if it was
// missed, one of a block and one that a router announces, and other learned ones.
var covered = []string{
	"10.0.0.1/32 dev kor1", "10.0.0.0/26 unreachable", "10.0.0.0/8 via 192.0.2.9", "10.0.1.0/26 via 192.0.2.2,192.0.2.130",
	"fd00::1/128 dev kor1", "fd00::/122 unreachable", "fd00::/16 via 2001:db8::9", "fd00:1::/122 via 2001:db8::2,2001:db8:1::2",
	"0.0.0.0/0 via 192.0.2.8", "::/0 via 2001:db8::8",
}

// sees is by what each of them is reached, and the node's own link.
var sees = map[string]string{
	"10.0.0.1": "kor1", "10.0.0.2": "unreachable", "10.200.0.1": "192.0.2.9", "10.0.1.7": "192.0.2.2 192.0.2.130", "203.0.113.1": "192.0.2.8",
	"fd00::1": "kor1", "fd00::2": "unreachable", "fd00:200::1": "2001:db8::9", "fd00:1::7": "2001:db8::2 2001:db8:1::2", "2001:4860::1": "2001:db8::8",
	"192.0.2.7": "eth0", "2001:db8::7": "eth0",
}

// look asks the kernel for the way to all that sees names, and returns what is wrong.
func look(n *kerneltest.Namespace) (wrong []string) {
	for to, by := range sees {
		found := ""
		routes, err := n.RouteGet(netip.MustParseAddr(to).AsSlice())
		switch {
		case errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH):
			found = "unreachable"
		case err != nil || len(routes) == 0:
			found = fmt.Sprint(err)
		case routes[0].Gw != nil:
			found = routes[0].Gw.String()
		default:
			link, err := n.LinkByIndex(routes[0].LinkIndex)
			if err != nil {
				return append(wrong, err.Error())
			}
			found = link.Attrs().Name
		}
		if !slices.Contains(strings.Fields(by), found) {
			wrong = append(wrong, fmt.Sprintf("%s is reached by %s, not %s", to, found, by))
		}
	}
	return wrong
}

// only fails unless all of covered is at w alone, and the rules there and nowhere else.
func only(t *testing.T, n *kerneltest.Namespace, w where) {
	t.Helper()
	if wrong := look(n); len(wrong) > 0 {
		t.Errorf("in %s: %v", w, wrong)
	}
	metric4, metric6 := "", " metric 1024"
	if w.metric != 0 {
		metric4 = fmt.Sprint(" metric ", w.metric)
		metric6 = metric4
	}
	all := map[int][]string{}
	for _, line := range []string{
		"10.0.0.1/32 dev kor1 scope link" + metric4, "type 7 10.0.0.0/26" + metric4, "10.0.0.0/8 via 192.0.2.9" + metric4,
		"10.0.1.0/26 via 192.0.2.130,192.0.2.2" + metric4, "fd00::1/128 dev kor1" + metric6, "type 7 fd00::/122" + metric6,
		"fd00::/16 via 2001:db8::9" + metric6, "fd00:1::/122 via 2001:db8:1::2,2001:db8::2" + metric6,
	} {
		all[int(w.table)] = append(all[int(w.table)], line)
	}
	all[desired.MainTable] = append(all[desired.MainTable], "0.0.0.0/0 via 192.0.2.8"+metric4, "::/0 via 2001:db8::8"+metric6)
	rule := []string{}
	if w.table != desired.MainTable {
		rule = append(rule, fmt.Sprintf("32112: from all lookup %d proto 112", w.table))
	}
	for _, other := range wheres {
		want := append([]string{}, all[int(other.table)]...)
		slices.Sort(want)
		if diff := cmp.Diff(want, n.RoutesIn(int(other.table), desired.RouteProtocol)); diff != "" {
			t.Errorf("all belongs to %s; in table %d (-want +got):\n%s", w, other.table, diff)
		}
	}
	for _, family := range []string{"-4", "-6"} {
		if diff := cmp.Diff(rule, rules(n, family)); diff != "" {
			t.Errorf("rules of %s (-want +got):\n%s", family, diff)
		}
	}
}

// rules returns ours of a family.
func rules(n *kerneltest.Namespace, family string) []string {
	found := []string{}
	for line := range strings.Lines(n.Run("ip", family, "rule", "show")) {
		if line = strings.Join(strings.Fields(line), " "); strings.HasSuffix(line, " proto 112") {
			found = append(found, line)
		}
	}
	return found
}

// TestRoutesMoveWhileTheyAreInUse: from every place to every other, while somebody asks
// for ways all the time.
func TestRoutesMoveWhileTheyAreInUse(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, into(wheres[0], told(routes(t, covered...))))
	asked, stop := make(chan struct{}), make(chan struct{})
	wrong := make(chan string, 1)
	go func() {
		defer close(wrong)
		for {
			if found := look(n); len(found) > 0 {
				wrong <- found[0]
				return
			}
			select {
			case asked <- struct{}{}:
			case <-stop:
				return
			default:
			}
		}
	}()
	for i, from := range wheres {
		for _, to := range wheres[i+1:] {
			for _, w := range []where{from, to, from} {
				mustApply(t, r, into(w, desired.Delta{}))
				only(t, n, w)
				select {
				case <-asked:
				case found := <-wrong:
					t.Fatalf("on the way to %s: %s", w, found)
				}
			}
		}
	}
	close(stop)
	if found, is := <-wrong; is {
		t.Error(found)
	}
}

// TestAMoveThatEndedHalfwayIsMade: by an agent that was killed after any step, and maybe
// is told of another place when it comes back.
func TestAMoveThatEndedHalfwayIsMade(t *testing.T) {
	steps := map[string]desired.Delta{"nothing was told": {}, "neighbours were silent": {Complete: true}, "all was told": {Complete: true, Learned: true}}
	for step, known := range steps {
		t.Run(step, func(t *testing.T) {
			n := node(t)
			for i, from := range wheres {
				halfway, to := wheres[(i+1)%len(wheres)], wheres[(i+2)%len(wheres)]
				mustApply(t, begin(t, n), into(from, told(routes(t, covered...))))
				only(t, n, from)
				d := routes(t, covered...)
				d.Complete, d.Learned = known.Complete, known.Learned
				mustApply(t, begin(t, n), into(halfway, d))
				if wrong := look(n); len(wrong) > 0 {
					t.Errorf("halfway from %s to %s: %v", from, halfway, wrong)
				}
				for _, w := range []where{halfway, to} {
					mustApply(t, begin(t, n), into(w, told(routes(t, covered...))))
					only(t, n, w)
				}
			}
		})
	}
}

// TestWhatNeighboursHaveNotToldYetIsUsedAfterARestartElsewhere: and what is new is too.
func TestWhatNeighboursHaveNotToldYetIsUsedAfterARestartElsewhere(t *testing.T) {
	const local = "10.0.0.3/32 dev kor2"
	for _, from := range wheres {
		for _, to := range wheres {
			if from == to || to.table == desired.MainTable && from.table != desired.MainTable {
				continue // packets are led to another table before the main one until all is told
			}
			t.Run(fmt.Sprint("from ", from, " to ", to), func(t *testing.T) {
				n := node(t)
				mustApply(t, begin(t, n), into(from, told(routes(t, covered...))))
				r := begin(t, n)
				d := routes(t, covered[0], covered[1], covered[4], covered[5], local)
				d.Complete = true
				mustApply(t, r, into(to, d))
				if wrong := look(n); len(wrong) > 0 {
					t.Error(wrong)
				}
				if got := n.Run("ip", "route", "get", "10.0.0.3"); !strings.Contains(got, "dev kor2") {
					t.Errorf("a new pod is reached by %s", got)
				}
				d = routes(t, covered...)
				d.Routes[netip.MustParsePrefix("10.0.0.3/32")] = nil
				mustApply(t, r, told(d))
				only(t, n, to)
			})
		}
	}
}

// TestRulesOfOthersStayAndOursComeBack when somebody removed them.
func TestRulesOfOthersStayAndOursComeBack(t *testing.T) {
	n := node(t)
	n.Run("ip", "rule", "add", "from", "198.51.100.1", "table", "200", "priority", "100", "protocol", "static")
	n.Run("ip", "route", "add", "10.9.0.0/26", "via", "192.0.2.3", "table", "200", "proto", "static")
	r := begin(t, n)
	mustApply(t, r, into(where{200, 0}, told(routes(t, covered...))))
	for _, family := range []string{"-4", "-6"} {
		n.Run("ip", family, "rule", "del", "priority", "32112")
	}
	for _, everywhere := range []string{"0.0.0.0/0", "::/0"} {
		r.RouteChanged(netip.MustParsePrefix(everywhere), desired.RouteProtocol)
	}
	mustApply(t, r, desired.Delta{})
	only(t, n, where{200, 0})
	mustApply(t, r, into(wheres[0], desired.Delta{}))
	only(t, n, wheres[0])
	if got := n.Run("ip", "rule"); !strings.Contains(got, "198.51.100.1 lookup 200") {
		t.Errorf("the other's rule is gone: %s", got)
	}
	if got := n.RoutesIn(200, unix.RTPROT_STATIC); len(got) != 1 {
		t.Errorf("of the other's routes there are %v", got)
	}
}

// TestAPodThatIsWithheldKeepsItsRouteWhereItWas, so that another metric does not cut it.
func TestAPodThatIsWithheldKeepsItsRouteWhereItWas(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, into(wheres[0], told(routes(t, covered...))))
	r.Withhold(map[string]error{"kor1": errors.New("policy change failed")})
	mustApply(t, r, into(wheres[1], desired.Delta{}))
	if wrong := look(n); len(wrong) > 0 {
		t.Error(wrong)
	}
	r.Withhold(nil)
	mustApply(t, r, desired.Delta{})
	only(t, n, wheres[1])
}

// TestWhatStandsInTheWayDoesNotHoldUpTheRest of a move.
func TestWhatStandsInTheWayDoesNotHoldUpTheRest(t *testing.T) {
	n := node(t)
	n.Run("ip", "route", "add", "10.0.1.0/26", "via", "192.0.2.2", "table", "200", "proto", "static")
	r := begin(t, n)
	mustApply(t, r, into(wheres[0], told(routes(t, covered...))))
	r.Want(into(where{200, 0}, desired.Delta{}))
	if err := r.Apply(context.WithoutCancel(t.Context())); err == nil || !strings.Contains(err.Error(), "10.0.1.0/26") {
		t.Errorf("Apply: %v", err)
	}
	if wrong := look(n); len(wrong) > 0 {
		t.Error(wrong)
	}
	n.Run("ip", "route", "del", "10.0.1.0/26", "table", "200", "proto", "static")
	mustApply(t, r, desired.Delta{})
	only(t, n, where{200, 0})
}

// TestPresentTellsOfOtherTables and of rules, for who removes all.
func TestPresentTellsOfOtherTables(t *testing.T) {
	n := node(t)
	mustApply(t, begin(t, n), into(where{200, 0}, told(routes(t, "10.0.0.1/32 dev kor1"))))
	var lines []string
	n.Do(func() {
		var err error
		if lines, err = route.Present(); err != nil {
			t.Error(err)
		}
	})
	want := []string{"10.0.0.1/32 in table 200 with metric 0", "rule 32112 to table 200, for packets from 0.0.0.0/0", "rule 32112 to table 200, for packets from ::/0"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	mustApply(t, begin(t, n), desired.Delta{Complete: true, Learned: true})
	for _, family := range []string{"-4", "-6"} {
		if left := append(rules(n, family), n.RoutesIn(200, desired.RouteProtocol)...); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
