package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/wireguard"
	"github.com/koratnet/korat/felix/report"
)

// tellKeys posts the keys of this node's ends of WireGuard tunnels.
func tellKeys(ring *wireguard.Ring, post func(...event.Event)) {
	for _, kind := range desired.TunnelKinds {
		if kind.Encapsulation() == desired.WireGuard {
			key, _ := ring.Key(kind)
			post(event.Set(kind.Device(), &event.TunnelKey{EncryptedEnd: desired.EncryptedEnd{Kind: kind, Key: key}}))
		}
	}
}

// announced returns what others need to know to send to this node encrypted: the
// ends that are there. It is nil until it is known whether they are.
func (t *tunnels) announced(state map[desired.TunnelKind]error) []koratv1.WireGuardStatus {
	if t.told == 0 {
		return nil
	}
	out := []koratv1.WireGuardStatus{}
	for kind, d := range t.wanted {
		err, there := state[kind]
		switch {
		case kind.Encapsulation() != desired.WireGuard:
		case !there:
			return nil
		case err == nil:
			s := koratv1.WireGuardStatus{Interface: kind.Device(), PublicKey: d.Key.String(), Port: int32(d.Port)}
			if key, since := t.ring.Key(kind); key == d.Key {
				s.KeySince = &metav1.Time{Time: since.Truncate(time.Second)}
			}
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b koratv1.WireGuardStatus) int { return cmp.Compare(a.Interface, b.Interface) })
	return out
}

// broken returns which of this node's ends were tried and do not work, and why.
func (t *tunnels) broken(state map[desired.TunnelKind]error) []string {
	var out []string
	for kind := range t.wanted {
		if err := state[kind]; err != nil && kind.Encapsulation() == desired.WireGuard {
			out = append(out, fmt.Sprintf("%s: %v", kind.Device(), err))
		}
	}
	slices.Sort(out)
	return out
}

// encryption returns which nodes are not reached encrypted, and what does not work
// here, nil where nothing asks for that.
func encryption(ways map[string]desired.PoolWays, broken []string) *report.Encryption {
	e := report.Encryption{Broken: broken}
	asked := len(broken) > 0
	for _, w := range ways {
		for way, names := range w.Nodes {
			asked = asked || way.Encapsulation == desired.WireGuard || way.Reason == desired.NoKey
			switch {
			case way.Encapsulation != desired.WireGuard:
				e.Clear = append(e.Clear, names...)
			case way.Reason == desired.NoKey:
				e.Closed = append(e.Closed, names...)
			}
		}
	}
	if !asked {
		return nil
	}
	for _, names := range []*[]string{&e.Closed, &e.Clear} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	return &e
}

// The metrics of encryption. Those of peers are named by their public key: which
// node that is the NodeNetworks say.
var (
	peersWithKey   = prometheus.NewDesc("korat_wireguard_peers", "Nodes that are sent to encrypted.", []string{"interface", "userspace"}, nil)
	peerHandshake  = prometheus.NewDesc("korat_wireguard_handshake_age_seconds", "Time since the last handshake with a node; none before the first.", []string{"interface", "public_key"}, nil)
	keyAge         = prometheus.NewDesc("korat_wireguard_key_age_seconds", "Time since the key of an interface was made.", []string{"interface"}, nil)
	encryptedBytes = prometheus.NewDesc("korat_wireguard_bytes_total", "Bytes in packets to and from other nodes, encrypted.", []string{"interface", "direction"}, nil)
)

// encryptionMetrics reads what the tunnels tell when it is asked for.
type encryptionMetrics struct {
	tunnels *wireguard.Reconciler
	ring    *wireguard.Ring
}

// Describe implements prometheus.Collector.
func (encryptionMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- peersWithKey
	out <- peerHandshake
	out <- keyAge
	out <- encryptedBytes
}

// Collect implements prometheus.Collector. What cannot be read is left out.
func (m encryptionMetrics) Collect(out chan<- prometheus.Metric) {
	all, _ := m.tunnels.Status()
	now := time.Now()
	for kind, s := range all {
		var received, sent uint64
		for key, p := range s.Peers {
			received, sent = received+p.Received, sent+p.Sent
			if !p.Handshake.IsZero() {
				out <- prometheus.MustNewConstMetric(peerHandshake, prometheus.GaugeValue, now.Sub(p.Handshake).Seconds(), kind.Device(), key.String())
			}
		}
		_, since := m.ring.Key(kind)
		out <- prometheus.MustNewConstMetric(keyAge, prometheus.GaugeValue, now.Sub(since).Seconds(), kind.Device())
		where := "false"
		if s.Userspace {
			where = "true"
		}
		out <- prometheus.MustNewConstMetric(peersWithKey, prometheus.GaugeValue, float64(len(s.Peers)), kind.Device(), where)
		out <- prometheus.MustNewConstMetric(encryptedBytes, prometheus.CounterValue, float64(received), kind.Device(), "received")
		out <- prometheus.MustNewConstMetric(encryptedBytes, prometheus.CounterValue, float64(sent), kind.Device(), "sent")
	}
}
