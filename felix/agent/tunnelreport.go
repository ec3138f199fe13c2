package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/tunnel"
	"github.com/koratnet/korat/felix/pathmtu"
	"github.com/koratnet/korat/felix/report"
	"github.com/koratnet/korat/felix/status"
)

// errNotThere says that the kernel has not been told of a tunnel yet.
var errNotThere = errors.New("not set up yet")

// report says what there is to tell of tunnels, pools and ways.
func (t *tunnels) report(f *report.Facts, board status.Snapshot) {
	state, offloads := t.state(), t.offloads()
	t.mu.Lock()
	defer t.mu.Unlock()
	f.MTU, f.Overhead = t.pods, t.mtu.Overhead
	for _, kind := range slices.SortedFunc(maps.Keys(t.wanted), func(a, b desired.TunnelKind) int { return cmp.Compare(a.Device(), b.Device()) }) {
		s := t.tunnelStatus(kind, state)
		if o, known := offloads[kind]; known {
			s.Offload, s.OffloadReason = offloadStatus(o, f.PathMTU.Offloads, kind)
		}
		f.Tunnels = append(f.Tunnels, s)
	}
	f.WireGuard, f.Encryption = t.announced(state), encryption(t.ways, t.broken(state))
	if to, why := t.exposed(); f.Encryption != nil {
		f.Encryption.Exposed, f.Encryption.Why = to, why
	}
	for _, name := range slices.Sorted(maps.Keys(t.ways)) {
		f.Pools = append(f.Pools, t.poolStatus(name, state, board))
		f.Ways = append(f.Ways, waysStatus(name, t.ways[name].Nodes)...)
	}
}

func (t *tunnels) tunnelStatus(kind desired.TunnelKind, state map[desired.TunnelKind]error) koratv1.TunnelStatus {
	d := t.wanted[kind]
	err, there := state[kind]
	if !there {
		err = errNotThere
	}
	s := koratv1.TunnelStatus{
		Interface: kind.Device(), Encapsulation: koratv1.Encapsulation(kind.Encapsulation().String()),
		Underlay: d.Underlay.String(), MTU: int32(d.MTU), Ready: err == nil,
	}
	if d.Addr.IsValid() {
		s.Address = d.Addr.String()
	}
	if err != nil {
		s.Problem = koratv1.Shorten(err.Error(), koratv1.MaxProblem)
	}
	return s
}

// offloadStatus says what is left to devices, and why.
func offloadStatus(o tunnel.Offload, tried []pathmtu.Offload, kind desired.TunnelKind) (koratv1.Switch, string) {
	if !o.On {
		return koratv1.SwitchDisabled, koratv1.Shorten(o.Why, koratv1.MaxProblem)
	}
	why := cmp.Or(o.Why, "not tried yet")
	i := slices.IndexFunc(tried, func(t pathmtu.Offload) bool { return t.Tunnel == kind.Device() })
	switch {
	case i < 0:
	case tried[i].Node != "":
		why = fmt.Sprintf("%s, though %s", why, spoilt(tried[i]))
	case o.Why == "":
		why = "packets arrive at every node that was tried" // how many would change often
	}
	return koratv1.SwitchEnabled, koratv1.Shorten(why, koratv1.MaxProblem)
}

// poolStatus: a node receives in a mode when its end of the tunnel is there, and
// its pods send no packets that are too large for it. It sends in a mode when the
// routes that say so are in the kernel; until then in the one before.
func (t *tunnels) poolStatus(name string, state map[desired.TunnelKind]error, board status.Snapshot) koratv1.NodePoolStatus {
	w, p := t.ways[name], t.pools[name]
	s := koratv1.NodePoolStatus{Name: name, Generation: w.Generation}
	applied := t.since[name] <= board.Applied
	narrow := t.mtu.Uplink == 0 || t.pods <= t.mtu.Uplink-t.mtu.Overhead
	for _, m := range w.Receives {
		kind, tunneled := desired.TunnelOf(m.Encapsulation, p != nil && p.CIDR.Addr().Is6())
		err, there := state[kind]
		if applied && (!tunneled || there && err == nil && narrow) {
			s.Receives = append(s.Receives, koratv1.Encapsulation(m.String()))
		}
	}
	if applied && !failed(board, "route") {
		t.sends[name] = w.Sends
	}
	if sends, known := t.sends[name]; known {
		s.Sends = koratv1.Encapsulation(sends.String())
	}
	return s
}

func failed(board status.Snapshot, reconciler string) bool {
	return slices.ContainsFunc(board.Reconcilers, func(c status.Condition) bool { return c.Reconciler == reconciler && c.Err != nil })
}

func waysStatus(pool string, nodes map[desired.Way][]string) []koratv1.NodeWayStatus {
	var out []koratv1.NodeWayStatus
	for way, names := range nodes {
		out = append(out, koratv1.NodeWayStatus{
			Pool: pool, Encapsulation: koratv1.Encapsulation(way.Encapsulation.String()), Reason: way.Reason.String(),
			Count: int32(len(names)), Nodes: names[:min(len(names), koratv1.MaxWayNodes)],
		})
	}
	slices.SortFunc(out, func(a, b koratv1.NodeWayStatus) int {
		return cmp.Or(cmp.Compare(a.Encapsulation, b.Encapsulation), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}
