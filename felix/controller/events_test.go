package controller

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/convert"
)

func TestOnlyWhatTurnsFalseIsToldOf(t *testing.T) {
	c := func(kind string, s metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: kind, Status: s, Reason: "R", Message: "m"}
	}
	before := []metav1.Condition{c("Was", "True"), c("Bad", "False"), c("Fine", "True")}
	after := []metav1.Condition{c("Was", "False"), c("Bad", "False"), c("Fine", "True"), c("New", "False")}
	got := conditionWarnings("7", before, after)
	want := []warning{{"7/Was", "R", "m"}, {"7/New", "R", "m"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(warning{})); diff != "" {
		t.Error(diff)
	}
}

func TestManyProblemsOfAPolicyAreSummedUp(t *testing.T) {
	for _, n := range []int{0, 1, maxProblems, maxProblems + 1, 500} {
		problems := make([]convert.Problem, n)
		got := policyWarnings(1, problems)
		if want := min(n, maxProblems+1); len(got) != want {
			t.Errorf("%d problems: %d warnings, want %d", n, len(got), want)
		}
		if n > maxProblems && got[maxProblems].message != fmt.Sprintf("%d more problems", n-maxProblems) {
			t.Errorf("last message is %q", got[maxProblems].message)
		}
	}
}

func TestAnEventIsNamedAfterWhatItSays(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: strings.Repeat("a.", 126) + "a", UID: "1"}}
	w := warning{"1/0", ReasonPolicyProblem, strings.Repeat("ü", 1000)}
	e := w.event(np, corev1.ObjectReference{}, time.Unix(9, 0))
	if again := w.event(np, corev1.ObjectReference{}, time.Unix(99, 0)); again.Name != e.Name {
		t.Errorf("said twice it is two Events: %s and %s", e.Name, again.Name)
	}
	if next := (warning{key: "2/0"}).event(np, corev1.ObjectReference{}, time.Unix(9, 0)); next.Name == e.Name {
		t.Error("the next generation has the same Event")
	}
	if errs := validation.IsDNS1123Subdomain(e.Name); len(errs) > 0 || e.Namespace != "shop" {
		t.Errorf("name %s/%s: %v", e.Namespace, e.Name, errs)
	}
	if len(e.Message) > koratv1.MaxMessage || !strings.HasSuffix(e.Message, "ü...") {
		t.Errorf("%d bytes that end in %q", len(e.Message), e.Message[len(e.Message)-8:])
	}
	if e := w.event(&koratv1.IPPool{}, corev1.ObjectReference{}, time.Unix(9, 0)); e.Namespace != "default" {
		t.Errorf("an Event about an object without namespace is in %q", e.Namespace)
	}
}

func TestPacerSpacesRuns(t *testing.T) {
	p, at := pacer{}, time.Unix(100, 0)
	a, b := client.ObjectKey{Namespace: "x", Name: "a"}, client.ObjectKey{Namespace: "y", Name: "a"}
	for _, step := range []struct{ after, left time.Duration }{
		{0, 0}, {0, pace}, {pace / 2, pace / 2}, {pace / 2, 0}, {pace - 1, 1}, {pace, 0},
	} {
		at = at.Add(step.after)
		if left := p.left(a, at); left != step.left {
			t.Fatalf("at %s: wait %s, want %s", at, left, step.left)
		}
	}
	if p.left(b, at) != 0 {
		t.Error("one object waits for another")
	}
	p.forget(a)
	if p.left(a, at) != 0 {
		t.Error("a new object of an old name waits")
	}
}

func TestDefaultPools(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/48")
	pools, err := defaultPools([]netip.Prefix{v6, v4})
	if err != nil || len(pools) != 2 || pools[0].Name != "default-v6" || pools[1].Name != "default" || pools[1].Spec.CIDR != "10.244.0.0/16" {
		t.Errorf("got %v, %v", pools, err)
	}
	if _, err := defaultPools([]netip.Prefix{v4, v4}); err == nil {
		t.Error("two default pools of one family are taken")
	}
}
