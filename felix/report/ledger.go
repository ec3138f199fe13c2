package report

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// speaker is the reconciler that has nothing to do with policy.
const speaker = "bgp"

// Ledger knows which policies select what on the node, and with the Board's help
// which of them are in force. Its methods may be called by any goroutine.
type Ledger struct {
	mu        sync.Mutex // guards the rest
	deltas    uint64     // how many were noted
	policies  map[policy.Key]entry
	endpoints map[string]*desired.Endpoint // by host interface
	hosts     map[string]host              // by interface
}

// host is a host endpoint that stands for an interface here.
type host struct {
	*desired.HostEndpoint
	since uint64 // the delta that last changed it or its programs
}

// entry is a policy that selects something here.
type entry struct {
	desired.PolicyUse
	since uint64 // the delta that last changed it or its programs
}

// NewLedger returns a Ledger that knows no policy.
func NewLedger() *Ledger {
	return &Ledger{policies: map[policy.Key]entry{}, endpoints: map[string]*desired.Endpoint{}, hosts: map[string]host{}}
}

// Note takes in a change of what is desired. It is told every Delta that the loop
// over the kernel is told, in the same order: their numbers tell what is applied.
func (l *Ledger) Note(d desired.Delta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deltas++
	for key, use := range d.Policies {
		if use == nil {
			delete(l.policies, key)
		} else {
			l.policies[key] = entry{*use, l.deltas}
		}
	}
	for id := range d.Programs {
		l.touch(id.Policy)
	}
	for iface, ep := range d.Endpoints {
		if ep == nil {
			delete(l.endpoints, iface)
		} else {
			l.endpoints[iface] = ep
			eachProgram(ep, func(id ir.ProgramID) { l.touch(id.Policy) })
		}
	}
	l.noteHosts(d)
}

// touch says that the delta of now changes something of a policy.
func (l *Ledger) touch(key policy.Key) {
	if e, known := l.policies[key]; known {
		e.since = l.deltas
		l.policies[key] = e
	}
}

// Count returns how many policies of each kind select something on the node.
func (l *Ledger) Count() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := map[string]int{}
	for key := range l.policies {
		count[key.Kind.String()]++
	}
	return count
}

// Policies returns what there is to say of the policies that have a status, in
// the order of NodeNetworkStatus.Policies, and how many more there are than fit.
func (l *Ledger) Policies(board status.Snapshot) (list []koratv1.NodePolicyStatus, leftOut int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	problems := l.problems(board)
	for key, e := range l.policies {
		s := koratv1.NodePolicyStatus{
			Kind: kindOf(key.Kind), Namespace: key.Namespace, Name: key.Name,
			Generation: e.Generation, Endpoints: int32(e.Pods + e.Hosts),
		}
		if s.Kind == "" {
			continue
		}
		if problem := problems[key]; problem != "" && !e.Staged {
			s.Problem = koratv1.Shorten(problem, koratv1.MaxProblem)
		} else if e.Hosts > 0 && !e.Staged {
			s.Problem = koratv1.Shorten(failing(board), koratv1.MaxProblem)
		}
		s.Programmed = !e.Staged && s.Problem == "" && e.since <= board.Applied
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b koratv1.NodePolicyStatus) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	leftOut = max(0, len(list)-koratv1.MaxNodePolicies)
	return list[:len(list)-leftOut], leftOut
}

// problems says of each policy that decides about an endpoint which is closed
// why that is so. Of several endpoints the first by interface counts.
func (l *Ledger) problems(board status.Snapshot) map[policy.Key]string {
	problems := map[policy.Key]string{}
	for _, iface := range slices.Sorted(maps.Keys(board.ClosedEndpoints)) {
		ep := l.endpoints[iface]
		if ep == nil {
			continue
		}
		eachProgram(ep, func(id ir.ProgramID) {
			if problems[id.Policy] == "" {
				problems[id.Policy] = "pod " + ep.Pod + ": " + board.ClosedEndpoints[iface]
			}
		})
	}
	return problems
}

func eachProgram(ep *desired.Endpoint, visit func(ir.ProgramID)) {
	for _, chain := range []ir.Chain{ep.Ingress, ep.Egress} {
		for _, tier := range chain.Tiers {
			for _, id := range tier.Programs {
				visit(id)
			}
		}
	}
}

// failing says what is wrong in the kernel: of host endpoints nobody tells one by
// one whether they are in force.
func failing(board status.Snapshot) string {
	for _, r := range board.Reconcilers {
		if r.Err != nil && r.Reconciler != speaker {
			return r.Reconciler + ": " + r.Err.Error()
		}
	}
	return ""
}

// kindOf returns the kind of those policies that have a status of ours.
func kindOf(kind policy.Kind) string {
	switch kind {
	case policy.NetworkPolicy:
		return "NetworkPolicy"
	case policy.GlobalNetworkPolicy:
		return "GlobalNetworkPolicy"
	}
	return ""
}
