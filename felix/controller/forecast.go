package controller

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

const (
	// sampleEvery and sampleFor say from what the pace is told in which a pool is
	// used up: long enough that a rollout is no alarm by itself.
	sampleEvery = 5 * time.Minute
	sampleFor   = 6 * time.Hour
	// leastSpan is the shortest time from which a pace is told.
	leastSpan = 30 * time.Minute
	// warnWithin is how near the end has to be for an alarm: a working day.
	warnWithin = 24 * time.Hour
	// warnFraction of the addresses has to be left, whatever the pace.
	warnFraction = 10
)

// forecasts tell when pools run out, from how they filled up. They begin anew with
// each leader.
type forecasts struct {
	mu      sync.Mutex // guards samples: loops and metrics meet here
	samples map[string][]sample

	addresses *prometheus.GaugeVec // by pool and state
	left      *prometheus.GaugeVec // by pool
}

// sample is how many addresses of a pool were in use at a time.
type sample struct {
	at   time.Time
	used int64
}

func newForecasts(r prometheus.Registerer) (*forecasts, error) {
	f := &forecasts{samples: map[string][]sample{}}
	var err error
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		var there prometheus.AlreadyRegisteredError
		switch e := r.Register(g).(type) {
		case nil:
		case prometheus.AlreadyRegisteredError: // an earlier run of this process
			there = e
			g = there.ExistingCollector.(*prometheus.GaugeVec)
		default:
			err = fmt.Errorf("metric %s: %w", name, e)
		}
		return g
	}
	f.addresses = gauge("korat_pool_addresses", "Addresses of an IPPool: allocated, quarantined, reserved, free.", "pool", "state")
	f.left = gauge("korat_pool_exhausted_in_seconds", "When the last address of an IPPool is given out at the pace of the last hours; +Inf for never.", "pool")
	return f, err
}

// note adds what is known of a pool now, and sets the condition in s.
func (f *forecasts) note(p *koratv1.IPPool, s *koratv1.IPPoolStatus, now time.Time) {
	used := s.Allocated + s.Quarantined
	f.mu.Lock()
	all := f.samples[p.Name]
	if n := len(all); n == 0 || now.Sub(all[n-1].at) >= sampleEvery {
		all = append(all, sample{now, used})
	}
	for len(all) > 1 && now.Sub(all[0].at) > sampleFor {
		all = all[1:]
	}
	f.samples[p.Name] = all
	first := all[0]
	f.mu.Unlock()

	free := max(s.Capacity-used, 0)
	in := exhaustedIn(first, sample{now, used}, free)
	for state, n := range map[string]int64{"allocated": s.Allocated, "quarantined": s.Quarantined, "reserved": s.Reserved, "free": free} {
		f.addresses.WithLabelValues(p.Name, state).Set(float64(n))
	}
	seconds := math.Inf(1)
	if in < forever {
		seconds = in.Seconds()
	}
	f.left.WithLabelValues(p.Name).Set(seconds)
	finding, ok := sufficiency(free, s.Capacity, in, now.Sub(first.at))
	meta.SetStatusCondition(&s.Conditions, finding.condition(koratv1.ConditionSufficient, ok, p.Generation))
}

// again says when a pool is looked at next although nothing happens.
func (f *forecasts) again(client.ObjectKey, time.Time) time.Duration { return sampleEvery }

// gone forgets a pool.
func (f *forecasts) gone(o client.ObjectKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.samples, o.Name)
	f.addresses.DeletePartialMatch(prometheus.Labels{"pool": o.Name})
	f.left.DeleteLabelValues(o.Name)
}

// forever is longer than any forecast.
const forever = time.Duration(math.MaxInt64)

// exhaustedIn returns when free addresses are used up at the pace between two
// samples, or forever.
func exhaustedIn(first, last sample, free int64) time.Duration {
	if free == 0 {
		return 0
	}
	span, grown := last.at.Sub(first.at), last.used-first.used
	if span < leastSpan || grown <= 0 {
		return forever
	}
	in := float64(free) / float64(grown) * float64(span)
	if in >= float64(forever) {
		return forever
	}
	return time.Duration(in)
}

// sufficiency says whether a pool will last.
func sufficiency(free, capacity int64, in, span time.Duration) (finding, bool) {
	switch {
	case in < warnWithin && free > 0:
		return finding{koratv1.ReasonRunningOut, fmt.Sprintf(
			"at the pace of the last %s the last of %d free addresses is given out in about %s: add an IPPool",
			span.Round(time.Minute), free, roughly(in))}, false
	case free < capacity/warnFraction || free == 0:
		return finding{koratv1.ReasonNearlyFull, fmt.Sprintf("less than a tenth of %d addresses is free: add an IPPool", capacity)}, false
	}
	return finding{reason: koratv1.ReasonSufficient}, true
}

// roughly rounds so that a condition does not change with every look.
func roughly(d time.Duration) string {
	if d < time.Hour {
		return "an hour or less"
	}
	return fmt.Sprintf("%d hours", int(d.Round(time.Hour).Hours()))
}
