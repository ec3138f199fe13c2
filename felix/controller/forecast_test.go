package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func TestAPoolThatRunsOutIsTold(t *testing.T) {
	t0 := time.Unix(1e6, 0)
	type look struct {
		after time.Duration
		used  int64
		want  string
	}
	for name, looks := range map[string][]look{
		"it stands still":                   {{0, 100, "True Sufficient"}, {6 * time.Hour, 100, "True Sufficient"}},
		"it shrinks":                        {{0, 500, "True Sufficient"}, {6 * time.Hour, 100, "True Sufficient"}},
		"a jump alone is no pace":           {{0, 0, "True Sufficient"}, {20 * time.Minute, 500, "True Sufficient"}},
		"the end is less than a day away":   {{0, 0, "True Sufficient"}, {time.Hour, 100, "False RunningOut: at the pace of the last 1h0m0s the last of 900 free addresses is given out in about 9 hours"}},
		"the end is far":                    {{0, 0, "True Sufficient"}, {time.Hour, 10, "True Sufficient"}},
		"less than a tenth is left":         {{0, 901, "False NearlyFull: less than a tenth of 1000 addresses is free"}},
		"nothing is left":                   {{0, 1000, "False NearlyFull"}},
		"old growth is forgotten":           {{0, 0, "True Sufficient"}, {time.Hour, 600, "False RunningOut"}, {20 * time.Hour, 600, "True Sufficient"}},
		"it is told again when it gets bad": {{0, 950, "False NearlyFull"}, {time.Hour, 800, "True Sufficient"}, {2 * time.Hour, 950, "False NearlyFull"}},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			f, err := newForecasts(registry)
			if err != nil {
				t.Fatal(err)
			}
			p := pool("p", "10.0.0.0/22", 0)
			for i, l := range looks {
				s := koratv1.IPPoolStatus{Capacity: 1000, Allocated: l.used}
				f.note(&p, &s, t0.Add(l.after))
				if got := brief(s.Conditions, koratv1.ConditionSufficient); !strings.HasPrefix(got, l.want) {
					t.Errorf("look %d: got %s, want %s", i, got, l.want)
				}
				if n := allocated(t, registry); n != float64(l.used) {
					t.Errorf("look %d: metric says %v", i, n)
				}
			}
		})
	}
}

// allocated reads the metric of addresses in use.
func allocated(t *testing.T, g prometheus.Gatherer) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "korat_pool_addresses" && l.GetValue() == "allocated" {
					return m.GetGauge().GetValue()
				}
			}
		}
	}
	t.Fatal("no metric korat_pool_addresses")
	return 0
}

func TestItem63WhatHoldsAPoolThatIsDeleted(t *testing.T) {
	p := pool("p", "10.244.0.0/16", 0, func(p *koratv1.IPPool) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(5, 0)} })
	var blocks []koratv1.Block
	for _, cidr := range []string{"10.244.0.0/26", "10.244.0.64/26", "10.244.0.128/26", "10.244.0.192/26", "10.244.1.0/26", "10.244.1.64/26"} {
		b := block(cidr, "p", 2)
		b.Spec.Node = "n"
		blocks = append(blocks, b)
	}
	for n, want := range map[int]string{
		0: "False Deleting: no block is left: the pool is gone in some seconds",
		1: "False Deleting: no address is given out any more; the pool is gone when the pods are that hold 2 addresses, in the blocks 10.244.0.0/26 of node n (2)",
		6: "in the blocks 10.244.0.0/26 of node n (2), 10.244.0.64/26 of node n (2), 10.244.0.128/26 of node n (2), 10.244.0.192/26 of node n (2), 10.244.1.0/26 of node n (2) and 1 more",
	} {
		got := brief(poolStatus(&p, []koratv1.IPPool{p}, blocks[:n], nil).Conditions, koratv1.ConditionReady)
		if !strings.Contains(got, want) {
			t.Errorf("%d blocks: got  %s\nwant %s", n, got, want)
		}
	}
}

func TestItem62ReservationsAreNoCapacity(t *testing.T) {
	reserve := func(cidrs ...koratv1.CIDR) koratv1.IPReservation {
		return koratv1.IPReservation{Spec: koratv1.IPReservationSpec{CIDRs: cidrs}}
	}
	p := pool("p", "10.244.0.0/24", 0)
	for _, c := range []struct {
		reserved []koratv1.IPReservation
		n        int64
		used     string
	}{
		{nil, 0, "0/256"},
		{[]koratv1.IPReservation{reserve("10.244.0.0/32", "10.244.0.255/32")}, 2, "0/254"},
		{[]koratv1.IPReservation{reserve("10.244.0.0/30"), reserve("10.244.0.0/28", "10.244.0.1/32")}, 16, "0/240"},
		{[]koratv1.IPReservation{reserve("10.0.0.0/8")}, 256, "0/0"},
		{[]koratv1.IPReservation{reserve("10.245.0.0/24", "fd00::/64")}, 0, "0/256"},
	} {
		s := poolStatus(&p, []koratv1.IPPool{p}, nil, c.reserved)
		if s.Reserved != c.n || s.Used != c.used || s.Capacity != 256-c.n {
			t.Errorf("%v: %d reserved, used %s, capacity %d; want %d, %s", c.reserved, s.Reserved, s.Used, s.Capacity, c.n, c.used)
		}
		for i := range c.reserved {
			r := &c.reserved[i]
			touches := strings.HasPrefix(brief(reservationStatus(r, []koratv1.IPPool{p}).Conditions, koratv1.ConditionAccepted), "True")
			if touches != (c.n > 0) {
				t.Errorf("%v: accepted %t", r.Spec.CIDRs, touches)
			}
		}
	}
}
