package watch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/event"
)

// recorder folds events into the set of names that are known.
type recorder struct {
	known  map[string]bool
	synced int
}

func (r *recorder) post(evs ...event.Event) {
	for _, ev := range evs {
		if ev.Value == nil {
			delete(r.known, ev.Key.Name)
		} else {
			r.known[ev.Key.Name] = true
		}
	}
}

func newBox() (*letterbox, *recorder) {
	r := &recorder{known: map[string]bool{}}
	return &letterbox{kind: event.PodKind, convert: pod, post: r.post, synced: func() { r.synced++ }, known: map[string]struct{}{}}, r
}

func aPod(name string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Status: corev1.PodStatus{Phase: phase}}
}

func (r *recorder) want(t *testing.T, names ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, n := range names {
		want["ns/"+n] = true
	}
	if diff := cmp.Diff(want, r.known); diff != "" {
		t.Fatal(diff)
	}
}

func TestItem47ARelistRemovesWhatIsMissingAndSyncsOnce(t *testing.T) {
	b, r := newBox()
	_ = b.Replace([]any{aPod("a", corev1.PodRunning), aPod("b", corev1.PodRunning)}, "1")
	_ = b.Add(aPod("c", corev1.PodPending))
	_ = b.Replace([]any{aPod("b", corev1.PodRunning), aPod("d", corev1.PodRunning)}, "2")
	r.want(t, "b", "d")
	if r.synced != 1 {
		t.Fatalf("synced %d times, want once", r.synced)
	}
}

func TestItem21APodThatFinishesIsGoneWhileItsObjectStays(t *testing.T) {
	b, r := newBox()
	_ = b.Add(aPod("a", corev1.PodRunning))
	_ = b.Update(aPod("a", corev1.PodSucceeded))
	r.want(t)
	_ = b.Delete(aPod("a", corev1.PodSucceeded))
	r.want(t)
}

func TestItem22ATerminatingPodStays(t *testing.T) {
	b, r := newBox()
	p := aPod("a", corev1.PodRunning)
	now := metav1.Now()
	p.DeletionTimestamp = &now
	_ = b.Update(p)
	r.want(t, "a")
}

func TestItem24AHostNetworkPodIsNoEndpoint(t *testing.T) {
	b, r := newBox()
	p := aPod("a", corev1.PodRunning)
	p.Spec.HostNetwork = true
	_ = b.Add(p)
	r.want(t)
}

func TestWithoutABGPConfigurationItsDefaultsHold(t *testing.T) {
	var last event.Event
	b := &letterbox{
		kind: event.BGPKind, convert: bgpConfiguration, absent: bgpDefaults, known: map[string]struct{}{}, synced: func() {},
		post: func(evs ...event.Event) {
			if len(evs) > 0 {
				last = evs[len(evs)-1]
			}
		},
	}
	o := &koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: koratv1.BGPConfigurationSpec{ASNumber: 65001, ListenPort: 1179}}
	_ = b.Add(o)
	if got := last.Value.(*event.BGP); got.ASN != 65001 || got.ListenPort != 1179 {
		t.Fatalf("got %+v", got)
	}
	_ = b.Delete(o)
	if last.Value != event.Value(bgpDefaults) {
		t.Fatalf("after the object went %+v holds, want the defaults", last.Value)
	}
}
