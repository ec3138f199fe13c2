package report

import (
	"maps"
	"slices"
	"strings"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy/ir"
)

// noteHosts takes in what becomes of host endpoints. They are a few.
func (l *Ledger) noteHosts(d desired.Delta) {
	for iface, h := range d.HostEndpoints {
		if h == nil {
			delete(l.hosts, iface)
		} else {
			l.hosts[iface] = host{h, l.deltas}
		}
	}
	for iface, h := range l.hosts {
		if len(d.Programs) > 0 && asksOne(h.HostEndpoint, d.Programs) {
			l.hosts[iface] = host{h.HostEndpoint, l.deltas}
		}
	}
}

// asksOne reports whether h asks one of these programs.
func asksOne(h *desired.HostEndpoint, programs map[ir.ProgramID]*ir.Program) bool {
	for _, c := range []desired.Chains{h.Normal, h.Forward, h.PreDNAT, h.Untracked} {
		for _, chain := range []ir.Chain{c.Ingress, c.Egress} {
			for _, t := range chain.Tiers {
				if slices.ContainsFunc(t.Programs, func(id ir.ProgramID) bool { _, ok := programs[id]; return ok }) {
					return true
				}
			}
		}
	}
	return false
}

// HostEndpoints returns what there is to say of the host endpoints that stand for an
// interface of the node, in the order of their names.
func (l *Ledger) HostEndpoints(board status.Snapshot) []koratv1.NodeHostEndpointStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	byName := map[string]koratv1.NodeHostEndpointStatus{}
	problem := koratv1.Shorten(failing(board), koratv1.MaxProblem)
	for _, iface := range slices.Sorted(maps.Keys(l.hosts)) {
		h := l.hosts[iface]
		s, known := byName[h.Name]
		s.Name, s.Problem = h.Name, problem
		s.Interfaces = append(s.Interfaces, iface)
		s.Programmed = (s.Programmed || !known) && problem == "" && h.since <= board.Applied
		byName[h.Name] = s
	}
	list := slices.SortedFunc(maps.Values(byName), func(a, b koratv1.NodeHostEndpointStatus) int { return strings.Compare(a.Name, b.Name) })
	return list[:min(len(list), koratv1.MaxNodeHostEndpoints)]
}
