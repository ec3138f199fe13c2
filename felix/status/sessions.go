package status

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/bgp"
)

// maxPeers is how many BGPPeers have metrics of their own: a node of a rack has
// two or four. Sessions with nodes, of which there may be thousands, are counted.
const maxPeers = 32

// sessionMetrics answer: are the neighbours there, since when are they not, what
// do they say and what are they told.
type sessionMetrics struct {
	sessions *prometheus.GaugeVec // by kind and state
	prefixes *prometheus.GaugeVec // by kind and direction
	up       *prometheus.GaugeVec // by peer
	accepted *prometheus.GaugeVec // by peer
	peers    map[string]struct{}  // that have the last two
}

func newSessionMetrics(reg prometheus.Registerer) sessionMetrics {
	m := sessionMetrics{
		peers: map[string]struct{}{},
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "korat_bgp_sessions", Help: "BGP sessions that are wanted, by kind of neighbour and whether they are established.",
		}, []string{"kind", "state"}),
		prefixes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "korat_bgp_prefixes", Help: "Prefixes that neighbours said, of these accepted, and that they were told, by kind of neighbour.",
		}, []string{"kind", "direction"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "korat_bgp_peer_up", Help: "How many sessions with a BGPPeer are established, of the first 32 peers by address.",
		}, []string{"peer"}),
		accepted: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "korat_bgp_peer_accepted_prefixes", Help: "Prefixes of a BGPPeer that are in use, of the first 32 peers by address.",
		}, []string{"peer"}),
	}
	reg.MustRegister(m.sessions, m.prefixes, m.up, m.accepted)
	return m
}

// SetSessions says how the BGP sessions of the node are, of peers and of nodes. One
// goroutine calls it.
func (b *Board) SetSessions(all []bgp.Session) { b.metrics.sessions.set(all) }

// set adds up first, so that a scrape meets no half of it.
func (m sessionMetrics) set(all []bgp.Session) {
	sessions, prefixes := map[[2]string]int{}, map[[2]string]int{}
	for _, kind := range []string{"bgppeer", "node"} {
		sessions[[2]string{kind, "established"}], sessions[[2]string{kind, "down"}] = 0, 0
	}
	up, accepted := map[string]int{}, map[string]int{}
	for _, s := range all {
		kind, state, one := "node", "down", 0
		peer, named := strings.CutPrefix(s.Peer, "bgppeer/")
		if named {
			kind = "bgppeer"
		}
		if s.Established {
			state, one = "established", 1
		}
		sessions[[2]string{kind, state}]++
		prefixes[[2]string{kind, "received"}] += s.Received
		prefixes[[2]string{kind, "accepted"}] += s.Accepted
		prefixes[[2]string{kind, "advertised"}] += s.Advertised
		if _, known := up[peer]; named && (known || len(up) < maxPeers) {
			up[peer] += one
			accepted[peer] += s.Accepted
		}
	}
	for l, n := range sessions {
		m.sessions.WithLabelValues(l[0], l[1]).Set(float64(n))
	}
	for l, n := range prefixes {
		m.prefixes.WithLabelValues(l[0], l[1]).Set(float64(n))
	}
	for peer := range m.peers {
		if _, still := up[peer]; !still {
			m.up.DeleteLabelValues(peer)
			m.accepted.DeleteLabelValues(peer)
			delete(m.peers, peer)
		}
	}
	for peer, n := range up {
		m.peers[peer] = struct{}{}
		m.up.WithLabelValues(peer).Set(float64(n))
		m.accepted.WithLabelValues(peer).Set(float64(accepted[peer]))
	}
}
