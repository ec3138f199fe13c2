package status_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/status"
)

func TestAWaiterIsWokenByItsGenerationOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := status.New(prometheus.NewRegistry())
		done := make(chan error, 1)
		go func() { done <- b.WaitEndpoint(t.Context(), "kor1", 2) }()
		for _, all := range []map[string]status.Endpoint{
			{},
			{"kor1": {Generation: 1}},
			{"kor2": {Generation: 2}},
			{"kor1": {Generation: 2, Closed: errors.New("no rules")}},
		} {
			b.SetEndpoints(all)
			synctest.Wait()
			if len(done) > 0 {
				t.Fatalf("woken by %v: %v", all, <-done)
			}
		}
		b.SetEndpoints(map[string]status.Endpoint{"kor1": {Generation: 2}})
		if err := <-done; err != nil {
			t.Errorf("WaitEndpoint: %v", err)
		}
	})
}

func TestAWaiterThatGivesUpSaysWhatWasMissing(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*status.Board)
		want    string
	}{
		"nothing known": {func(*status.Board) {}, "endpoint kor1: not applied yet: not started yet"},
		"closed": {
			func(b *status.Board) {
				b.SetEndpoints(map[string]status.Endpoint{"kor1": {Generation: 2, Closed: errors.New("interface kor1: no such interface")}})
			}, "endpoint kor1: interface kor1: no such interface",
		},
		"older generation": {
			func(b *status.Board) {
				b.Expect("iptables")
				b.SetEndpoints(map[string]status.Endpoint{"kor1": {Generation: 1}})
			}, "endpoint kor1: not applied yet: iptables: not in sync yet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := status.New(prometheus.NewRegistry())
				c.prepare(b)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := b.WaitEndpoint(ctx, "kor1", 2)
				if err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
			})
		})
	}
}

func TestSnapshotAndMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := status.New(reg)
		b.Expect("route")
		b.Expect("link")
		b.Record(status.Attempt{Reconciler: "route", Complete: true, Resynced: true})
		began := time.Now()
		time.Sleep(time.Minute)
		fail := errors.New("no route to host")
		b.Record(status.Attempt{Reconciler: "route", Err: fail, Complete: true})
		time.Sleep(time.Minute)
		b.Record(status.Attempt{Reconciler: "route", Err: fail, Complete: true})
		b.SetEndpoints(map[string]status.Endpoint{"kor1": {}, "kor2": {Closed: errors.New("no rules")}})

		s := b.Snapshot()
		if len(s.Reconcilers) != 2 || s.Reconcilers[1].Err != fail || !s.Reconcilers[1].Synced ||
			!s.Reconcilers[1].Since.Equal(began.Add(time.Minute)) || s.Reconcilers[0].Synced {
			t.Errorf("reconcilers: %+v", s.Reconcilers)
		}
		if diff := cmp.Diff(map[string]string{"kor2": "no rules"}, s.ClosedEndpoints); diff != "" || s.Endpoints != 2 {
			t.Errorf("%d endpoints, closed (-want +got):\n%s", s.Endpoints, diff)
		}
		want := map[string]float64{
			"korat_apply_failing link": 0, "korat_apply_failing route": 1,
			"korat_apply_failures_total link": 0, "korat_apply_failures_total route": 2,
			"korat_apply_resyncs_total link": 0, "korat_apply_resyncs_total route": 1,
			"korat_apply_duration_seconds route": 3,
			"korat_endpoints":                    2, "korat_endpoints_closed": 1,
		}
		if diff := cmp.Diff(want, gather(t, reg)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// gather returns what reg holds: values, and counts of histograms, by name and label.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}
