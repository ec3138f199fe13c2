package agent

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/sysctl"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// hasBegun reports whether the engine has said anything.
func (t *tunnels) hasBegun() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.told > 0
}

// rotation returns how often keys take turns, 0 for never, whether what the node itself
// sends is to be encrypted, and the ends of other nodes.
func (t *tunnels) rotation() (period time.Duration, hosts bool, ends map[desired.EncryptedEnd]desired.EncryptedPeer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.period == 0 && !t.hosts {
		return 0, false, nil
	}
	return t.period, t.hosts, maps.Clone(t.ends)
}

// against says why what the node itself sends is not to be encrypted, "" if nothing
// speaks against it. Whoever is not proved to be reached, or does not encrypt so, answers
// in clear, and a strict reverse path filter drops that. A process that would end with the
// agent's container would leave the node cut off while that cannot start.
func (t *tunnels) against(seen map[desired.TunnelKind]wireguard.Status) (why string) {
	t.mu.Lock()
	wanted := maps.Clone(t.wanted)
	t.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(wanted)) { // the first that speaks against it
		switch {
		case kind.Encapsulation() != desired.WireGuard || why != "":
		case seen[kind].Userspace && os.Getpid() == 1:
			why = "the process that encrypts would end with the agent"
		default:
			why = deaf(wanted[kind].Underlay)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inClear = why
	return why
}

// deaf says why what comes to an address of the node in clear would not be taken.
func deaf(a netip.Addr) string {
	all, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	for _, i := range all {
		addrs, _ := i.Addrs() // an interface may go at any time
		has := slices.ContainsFunc(addrs, func(x net.Addr) bool {
			n, ok := x.(*net.IPNet)
			return ok && n.IP.Equal(a.AsSlice())
		})
		if !has {
			continue
		}
		strict, err := sysctl.StrictReversePath(sysctl.Root)
		switch {
		case err != nil:
			return err.Error()
		case a.Is4() && len(strict) > 0:
			return fmt.Sprintf("the kernel parameter rp_filter of %s is 1, and has to be 0 or 2", strict[0])
		}
		return ""
	}
	return fmt.Sprintf("no interface has the node's address %s", a)
}

// exposed returns the addresses of nodes to which the node itself sends in clear, sorted,
// and why, where that is not what is wanted.
func (t *tunnels) exposed() (to []netip.Addr, why string) {
	if !t.hosts {
		return nil, ""
	}
	for a, encrypted := range t.takes() {
		if !encrypted {
			to = append(to, a)
		}
	}
	slices.SortFunc(to, netip.Addr.Compare)
	return to, t.inClear
}

// takes says of the addresses of other nodes' ends, of which one may have two, whether the
// node itself sends to them encrypted. It is called with mu held.
func (t *tunnels) takes() map[netip.Addr]bool {
	takes := map[netip.Addr]bool{}
	for _, p := range t.ends {
		takes[p.Endpoint.Addr()] = takes[p.Endpoint.Addr()] || p.Host
	}
	return takes
}

// census returns to how many other nodes the node itself sends encrypted, and to how many
// in clear, be it in one family of those that it encrypts; wanted is false where it is to
// encrypt nothing of this. others are the addresses of all, by name: nodes that announced
// no key are among them.
func (t *tunnels) census(others map[string][]netip.Addr) (encrypted, clear int, wanted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hosts {
		return 0, 0, false
	}
	takes := t.takes()
	for _, addrs := range others {
		counts, open := false, false
		for _, kind := range []desired.TunnelKind{desired.WireGuard4, desired.WireGuard6} {
			first := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == kind.Is6() })
			if _, here := t.wanted[kind]; here && first >= 0 {
				counts, open = true, open || !takes[addrs[first]]
			}
		}
		switch {
		case open:
			clear++
		case counts:
			encrypted++
		}
	}
	return encrypted, clear, true
}

var hostNodes = prometheus.NewDesc("korat_wireguard_host_nodes", "Other nodes by how the node itself sends to them; none where that is not to be encrypted.", []string{"state"}, nil)

// hostMetrics counts the nodes when it is asked for them.
type hostMetrics struct {
	tunnels *tunnels
	nodes   func() map[string][]netip.Addr // addresses of the others, by name
}

// Describe implements prometheus.Collector.
func (hostMetrics) Describe(out chan<- *prometheus.Desc) { out <- hostNodes }

// Collect implements prometheus.Collector.
func (m hostMetrics) Collect(out chan<- prometheus.Metric) {
	encrypted, clear, wanted := m.tunnels.census(m.nodes())
	if !wanted {
		return
	}
	out <- prometheus.MustNewConstMetric(hostNodes, prometheus.GaugeValue, float64(encrypted), "encrypted")
	out <- prometheus.MustNewConstMetric(hostNodes, prometheus.GaugeValue, float64(clear), "clear")
}
