package calc

import (
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
)

// subjects knows which policies select which local endpoints. Only an endpoint
// whose pod the API server knows on this node can be judged; about the others,
// and about those whose namespace or service account is unknown where a policy
// asks for its labels, subjects is in doubt, and doubt closes. Staged policies
// raise no doubt.
type subjects struct {
	in     *inputs
	labels *labels

	pods  selection // local endpoints, by interface
	hosts selection // host endpoints of this node, by name

	doubtful relation          // namespace → interfaces in doubt
	isolates map[isolation]int // policies that name a namespace, by what they isolate there
	wide     set               // policies that name none: few, as they are made by the cluster's owner
	staff    set               // policies that ask for labels of service accounts: few as well
}

// isolation is a direction in which some policy isolates pods of a namespace.
type isolation struct {
	namespace string
	direction policy.Direction
}

func newSubjects(in *inputs, labels *labels) subjects {
	return subjects{
		in: in, labels: labels,
		pods: newSelection(policy.Pods), hosts: newSelection(policy.HostEndpoints),
		doubtful: relation{}, isolates: map[isolation]int{}, wide: set{}, staff: set{},
	}
}

func (s *subjects) drain() {
	woken := set{} // local endpoints
	for name, was := range s.in.policies.was {
		s.reindexPolicy(name, was, s.in.policies.now[name], woken)
	}
	for name := range s.labels.moved {
		s.relabel(name, woken)
	}
	for name := range s.in.accounts.was {
		s.reemploy(name, woken)
	}
	for iface, was := range s.in.endpoints.was {
		if was != nil {
			s.doubtful.remove(was.Handle.Namespace, iface)
		}
		woken.add(iface)
	}
	for pod := range s.in.pods.was {
		for iface := range s.labels.attached[pod] {
			woken.add(iface)
		}
	}
	for iface := range woken {
		s.reindexEndpoint(iface)
	}
	for name := range s.in.hosts.was {
		if h := s.in.hosts.now[name]; h != nil && h.Node == s.labels.node {
			s.hosts.setThing(name, "", h.Labels)
		} else {
			s.hosts.removeThing(name)
		}
	}
	s.pods.relate()
	s.hosts.relate()
}

// reindexPolicy takes over a changed policy, and wakes the endpoints that it
// leaves in doubt.
func (s *subjects) reindexPolicy(name string, was, is *event.Policy, woken set) {
	delete(s.wide, name)
	delete(s.staff, name)
	if was != nil {
		s.count(name, enforced(was.Policy), -1, woken)
	}
	var p *policy.Policy
	if is != nil {
		p = is.Policy
		s.count(name, enforced(p), +1, woken)
	}
	s.pods.setPolicy(name, p)
	s.hosts.setPolicy(name, p)
}

// count adds n times what a policy closes in doubt.
func (s *subjects) count(name string, p *policy.Policy, n int, woken set) {
	if p == nil {
		return
	}
	scope, ok := subjectOf(p, policy.Pods)
	if !ok {
		return
	}
	if policy.AsksAccount(scope.Pods) && n > 0 {
		s.staff.add(name)
	}
	if scope.Namespace == "" {
		if n > 0 {
			s.wide.add(name)
		}
		for ns := range s.doubtful {
			s.wakeDoubtful(ns, woken)
		}
		return
	}
	for _, d := range policy.Directions {
		if p.Types&d == 0 {
			continue
		}
		i := isolation{scope.Namespace, d}
		if s.isolates[i] += n; s.isolates[i] == 0 {
			delete(s.isolates, i)
		}
	}
	s.wakeDoubtful(scope.Namespace, woken)
}

func (s *subjects) wakeDoubtful(namespace string, woken set) {
	for iface := range s.doubtful[namespace] {
		woken.add(iface)
	}
}

// relabel takes over a namespace whose labels changed, and wakes its endpoints.
func (s *subjects) relabel(name string, woken set) {
	if ns := s.labels.namespace(name); ns.Known {
		s.pods.things.SetNamespace(name, ns.Labels)
	} else {
		s.pods.things.RemoveNamespace(name)
	}
	s.wake(name, woken)
}

// reemploy wakes the endpoints whose service account may have changed.
func (s *subjects) reemploy(account string, woken set) {
	a := s.in.accounts.now[account]
	if a == nil {
		a = s.in.accounts.was[account]
	}
	s.wake(a.Namespace, woken)
}

// wake marks the local endpoints of a namespace.
func (s *subjects) wake(namespace string, woken set) {
	for iface := range s.pods.things.In(namespace) {
		woken.add(iface)
	}
	s.wakeDoubtful(namespace, woken)
}

// reindexEndpoint takes over an endpoint whose attachment, pod, account or
// namespace changed.
func (s *subjects) reindexEndpoint(iface string) {
	ep := s.in.endpoints.now[iface]
	if ep == nil {
		s.pods.removeThing(iface)
		return
	}
	ns := ep.Handle.Namespace
	pod := s.labels.localPod(ep)
	if pod == nil {
		s.pods.removeThing(iface)
	} else {
		s.pods.setThing(iface, ns, s.labels.pod(podOf(ep)).labels)
	}
	if pod == nil || !s.labels.namespace(ns).Known || !s.labels.accountKnown(pod) {
		s.doubtful.add(ns, iface)
	} else {
		s.doubtful.remove(ns, iface)
	}
}

// doubt returns the directions in which a policy may isolate the endpoint
// without our being able to tell.
func (s *subjects) doubt(iface string, ep *event.Endpoint) policy.Direction {
	ns := s.labels.namespace(ep.Handle.Namespace)
	if !s.doubtful[ns.Name].has(iface) {
		return 0
	}
	pod := s.labels.localPod(ep)
	var doubt policy.Direction
	for _, d := range policy.Directions {
		if pod == nil && s.isolates[isolation{ns.Name, d}] > 0 {
			doubt |= d
		}
	}
	for name := range s.wide {
		p := s.in.policies.now[name]
		byLabel := !p.Subject.Namespaces.IsAll()
		switch {
		case byLabel && ns.Known && !p.Subject.Namespaces.Matches(ns.Labels), // surely not
			pod != nil && (!byLabel || ns.Known),                  // judged
			pod != nil && !s.selectsByLabels(p.Policy, podOf(ep)): // surely not
		default:
			doubt |= p.Types
		}
	}
	if pod != nil && !s.labels.accountKnown(pod) {
		for name := range s.staff {
			if p := s.in.policies.now[name]; mayBeIn(p.Subject, ns) {
				doubt |= p.Types
			}
		}
	}
	return doubt
}

// selectsByLabels reports whether the labels of a pod are those that p asks for.
func (s *subjects) selectsByLabels(p *policy.Policy, pod string) bool {
	return p.Subject.Pods.Matches(s.labels.pod(pod).labels)
}

// mayBeIn reports whether scope selects the namespace, or might if its labels
// were known.
func mayBeIn(scope policy.Scope, ns match.Namespace) bool {
	return match.InNamespace(scope, ns) || scope.Namespace == "" && !ns.Known
}

func (s *subjects) settle() {
	s.pods.settle()
	s.hosts.settle()
}
