package status

import "github.com/prometheus/client_golang/prometheus"

// metrics answer: is everything applied, how long does it take, what fails, how
// much policy is there. The labels are the reconciler's name, of which there are
// about ten, and the kind of policy.
type metrics struct {
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	resyncs  *prometheus.CounterVec
	failing  *prometheus.GaugeVec
	wanted   prometheus.Gauge
	closed   prometheus.Gauge
	policies *prometheus.GaugeVec // by kind
	sessions sessionMetrics
}

func newMetrics(reg prometheus.Registerer) metrics {
	labels := []string{"reconciler"}
	m := metrics{
		sessions: newSessionMetrics(reg),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "korat_apply_duration_seconds", Help: "Time of one run of a reconciler.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9), // 0.1 ms to 6.6 s
		}, labels),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "korat_apply_failures_total", Help: "Runs of a reconciler that failed.",
		}, labels),
		resyncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "korat_apply_resyncs_total", Help: "Times that a reconciler read back the kernel.",
		}, labels),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "korat_apply_failing", Help: "1 while the last run of a reconciler failed.",
		}, labels),
		wanted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "korat_endpoints", Help: "Local pods whose attachment is wanted.",
		}),
		closed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "korat_endpoints_closed", Help: "Local pods whose attachment is not applied.",
		}),
		policies: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "korat_policies", Help: "Policies that select something on the node, staged ones too.",
		}, []string{"kind"}),
	}
	reg.MustRegister(m.duration, m.failures, m.resyncs, m.failing, m.wanted, m.closed, m.policies)
	return m
}

func (m metrics) expect(name string) {
	m.failures.WithLabelValues(name)
	m.resyncs.WithLabelValues(name)
	m.failing.WithLabelValues(name).Set(0)
}

func (m metrics) forget(name string) {
	m.duration.DeleteLabelValues(name)
	m.failures.DeleteLabelValues(name)
	m.resyncs.DeleteLabelValues(name)
	m.failing.DeleteLabelValues(name)
}

func (m metrics) record(a Attempt) {
	m.duration.WithLabelValues(a.Reconciler).Observe(a.Took.Seconds())
	failing := 0.0
	if a.Err != nil {
		failing = 1
		m.failures.WithLabelValues(a.Reconciler).Inc()
	}
	if a.Resynced {
		m.resyncs.WithLabelValues(a.Reconciler).Inc()
	}
	m.failing.WithLabelValues(a.Reconciler).Set(failing)
}

func (m metrics) endpoints(wanted, closed int) {
	m.wanted.Set(float64(wanted))
	m.closed.Set(float64(closed))
}

func (m metrics) countPolicies(count map[string]int) {
	m.policies.Reset()
	for kind, n := range count {
		m.policies.WithLabelValues(kind).Set(float64(n))
	}
}
