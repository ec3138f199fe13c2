package agent

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy/selector"
)

// answers is an API server that knows one pod, one namespace, or neither.
type answers struct {
	pod, namespace map[string]string // annotations
	err            error             // to every question
	asked          string
}

func (a *answers) PodAnnotations(context.Context, string, string) (map[string]string, error) {
	a.asked += "pod "
	return a.pod, a.err
}

func (a *answers) Namespace(context.Context, string) (labels, annotations map[string]string, err error) {
	a.asked += "namespace "
	return map[string]string{"told": "by answer"}, a.namespace, a.err
}

func TestWhatIsKnownOfAPodAtItsADD(t *testing.T) {
	pools := func(name string) map[string]string { return map[string]string{annotation.IPv4Pools: name} }
	one, two := event.ParseUID("3f9d3a5e-0d2b-4d0c-9b2f-5d3f2f1c7a10"), event.ParseUID("4f9d3a5e-0d2b-4d0c-9b2f-5d3f2f1c7a10")
	watched := &event.Pod{Namespace: "ns", Name: "p", Node: "n", UID: one, Annotations: pools("a")}
	space := &event.Namespace{Name: "ns", Labels: selector.MakeLabels(map[string]string{"told": "by watch"}), Annotations: pools("n")}
	away := errors.New("away")
	const late = 20 * time.Millisecond
	for name, c := range map[string]struct {
		uid              event.UID
		pod, latePod     *event.Pod       // what the watch told, and what it tells late
		space, lateSpace *event.Namespace // the same
		api              answers
		asked            string
		wantPod, wantNS  string // of the pool annotation; empty: not known
		labels           string
		atMost           time.Duration
	}{
		"the watch knows it": {pod: watched, space: space, wantPod: "a", wantNS: "n", labels: "by watch"},
		"the very pod":       {uid: one, pod: watched, space: space, wantPod: "a", wantNS: "n", labels: "by watch"},
		"an earlier pod of the name": {
			uid: two, pod: watched, space: space, api: answers{pod: pools("b")}, asked: "pod ",
			wantPod: "b", wantNS: "n", labels: "by watch", atMost: lookupWait,
		},
		"the watch is a little late": {latePod: watched, space: space, wantPod: "a", wantNS: "n", labels: "by watch", atMost: late},
		"the watch is later": {
			space: space, api: answers{pod: map[string]string{annotation.IPv4Pools: "b", "other/x": "y"}}, asked: "pod ",
			wantPod: "b", wantNS: "n", labels: "by watch", atMost: lookupWait,
		},
		"nobody knows it": {space: space, api: answers{err: errors.New("not found")}, asked: "pod ", wantNS: "n", labels: "by watch", atMost: lookupWait},
		"another node's does not count": {
			pod: &event.Pod{Namespace: "ns", Name: "p", Node: "other", Annotations: pools("a")}, space: space, api: answers{err: away}, asked: "pod ",
			wantNS: "n", labels: "by watch", atMost: lookupWait,
		},
		"of its namespace the watch tells late": {pod: watched, lateSpace: space, wantPod: "a", wantNS: "n", labels: "by watch", atMost: late},
		"of its namespace the watch tells later": {
			pod: watched, api: answers{namespace: map[string]string{annotation.IPv4Pools: "m", "other/x": "y"}}, asked: "namespace ",
			wantPod: "a", wantNS: "m", labels: "by answer", atMost: lookupWait,
		},
		"the watch tells of nothing": {
			api: answers{pod: pools("b"), namespace: pools("m")}, asked: "pod namespace ",
			wantPod: "b", wantNS: "m", labels: "by answer", atMost: lookupWait,
		},
		"nobody tells of anything": {api: answers{err: away}, asked: "pod namespace ", atMost: lookupWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDirectory(&c.api, "n")
				d.setNamespace("ns", c.space)
				d.setPod("ns/p", c.pod)
				time.AfterFunc(late, func() {
					if c.latePod != nil {
						d.setPod("ns/p", c.latePod)
					}
					if c.lateSpace != nil {
						d.setNamespace("ns", c.lateSpace)
					}
				})
				start := time.Now()
				l := d.Lookup(t.Context(), "ns", "p", c.uid)
				if took := time.Since(start); took > c.atMost {
					t.Errorf("it took %s, want at most %s", took, c.atMost)
				}
				if c.api.asked != c.asked {
					t.Errorf("asked for %q, want %q", c.api.asked, c.asked)
				}
				if l.PodKnown != (c.wantPod != "") || l.Pod[annotation.IPv4Pools] != c.wantPod || len(l.Pod) > 1 {
					t.Errorf("pod: %+v", l)
				}
				if l.NamespaceKnown != (c.wantNS != "") || l.Namespace[annotation.IPv4Pools] != c.wantNS || len(l.Namespace) > 1 {
					t.Errorf("namespace: %+v", l)
				}
				if got, _ := l.Labels.Get("told"); got != c.labels {
					t.Errorf("labels of the namespace are told %q, want %q", got, c.labels)
				}
			})
		})
	}
}

func TestAFloatingAddressIsRefusedWhileAnOlderPodHasIt(t *testing.T) {
	d := newDirectory(&answers{}, "n")
	a := netip.MustParseAddr("203.0.113.7")
	refused := func(want string) {
		t.Helper()
		got := ""
		if err := d.Floating("ns", "p", []netip.Addr{a}); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("refused: %q, want %q", got, want)
		}
	}
	refused("is in no IPPool")
	pool := &event.Pool{Pool: ipam.Pool{Name: "f", CIDR: netip.MustParsePrefix("203.0.113.0/24"), Uses: ipam.Floating, Namespaces: selector.Has("team"), Nodes: selector.Has("edge")}}
	d.setPool("f", pool)
	refused("namespaceSelector does not match namespace ns")
	d.setNamespace("ns", &event.Namespace{Name: "ns", Labels: selector.MakeLabels(map[string]string{"team": "a"})})
	refused("nodeSelector does not match node n")
	edge := &event.Node{Name: "n", Labels: selector.MakeLabels(map[string]string{"edge": ""})}
	d.setNode("n", edge)
	d.setNode("other", edge)
	refused("")
	older := &event.Pod{Namespace: "ns", Name: "older", Node: "other", Floating: &event.Floating{Addrs: []netip.Addr{a}}}
	d.setPod("ns/older", older)
	refused(`leads to pod ns/older on node "other"`)
	d.setNode("other", nil)
	refused("")
	d.setNode("other", edge)
	d.setPod("ns/older", nil)
	refused("")
	d.setPool("f", nil)
	refused("is in no IPPool")
}

var _ cniserver.Directory = (*directory)(nil)
