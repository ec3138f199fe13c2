package flow

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/flow/wire"
)

// metrics answer: is anything denied, and by what kind of thing. Every label has
// a few values that we choose; names are for koratctl drops.
type metrics struct {
	drops  *prometheus.CounterVec
	missed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		drops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "korat_drops_total", Help: "Denied packets that were looked at, by what denied them.",
		}, []string{"cause", "direction", "kind"}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "korat_drops_missed_total", Help: "Denied packets that were not looked at, because there were too many.",
		}),
	}
	reg.MustRegister(m.drops, m.missed)
	return m
}

// count counts a packet. kind is that of the policy whose rule denied.
func (m metrics) count(r wire.Reason) {
	kind, _, _ := strings.Cut(r.Policy, "/")
	m.drops.WithLabelValues(r.Cause, r.Direction, kind).Inc()
}
