package calc

import (
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/match"
)

// subjects knows which policies select which local endpoints. Only an endpoint
// whose pod the API server knows on this node can be judged; about the others,
// and about those whose namespace is unknown where a policy asks for its labels,
// subjects is in doubt, and doubt closes.
type subjects struct {
	in     *inputs
	labels *labels

	policies  *match.Scopes[string] // by policy
	endpoints *match.Things[string] // judged ones, by interface
	byPolicy  relation              // policy → interfaces
	byIface   relation              // interface → policies

	doubtful relation          // namespace → interfaces in doubt
	isolates map[isolation]int // policies that name a namespace, by what they isolate there
	wide     set               // policies that name none: few, as they are made by the cluster's owner

	dirtyPolicies, dirtyIfaces set // whose selection may have changed in this flush
}

// isolation is a direction in which some policy isolates pods of a namespace.
type isolation struct {
	namespace string
	direction policy.Direction
}

func newSubjects(in *inputs, labels *labels) subjects {
	return subjects{
		in: in, labels: labels,
		policies: match.NewScopes[string](), endpoints: match.NewThings[string](),
		byPolicy: relation{}, byIface: relation{},
		doubtful: relation{}, isolates: map[isolation]int{}, wide: set{},
		dirtyPolicies: set{}, dirtyIfaces: set{},
	}
}

func (s *subjects) drain() {
	for name := range s.in.policies.was {
		s.dirtyPolicies.add(name)
		s.reindexPolicy(name)
	}
	for name := range s.labels.moved {
		s.relabel(name)
	}
	for iface, was := range s.in.endpoints.was {
		if was != nil {
			s.doubtful.remove(was.Handle.Namespace, iface)
		}
		s.dirtyIfaces.add(iface)
	}
	for pod := range s.in.pods.was {
		for iface := range s.labels.attached[pod] {
			s.dirtyIfaces.add(iface)
		}
	}
	// From here on both indexes say how things are; now the relation.
	changed := s.dirtyIfaces
	s.dirtyIfaces = set{}
	for iface := range changed {
		s.reindexEndpoint(iface)
	}
	for name := range s.in.policies.was {
		s.unlinkPolicy(name)
		if p := s.in.policies.now[name]; p != nil {
			for iface := range s.endpoints.Matching(p.Subject) {
				s.link(name, iface)
			}
		}
	}
	for iface := range changed {
		s.rejudge(iface)
	}
}

// reindexPolicy takes over a changed policy, and wakes the endpoints that it
// leaves in doubt.
func (s *subjects) reindexPolicy(name string) {
	if was := s.in.policies.was[name]; was != nil {
		s.count(name, was.Policy, -1)
	}
	is := s.in.policies.now[name]
	if is == nil {
		s.policies.Remove(name)
		return
	}
	s.policies.Set(name, is.Subject)
	s.count(name, is.Policy, +1)
}

func (s *subjects) count(name string, p *policy.Policy, n int) {
	if p.Subject.Namespace == "" {
		delete(s.wide, name)
		if n > 0 {
			s.wide.add(name)
		}
		for ns := range s.doubtful {
			s.wakeDoubtful(ns)
		}
		return
	}
	for _, d := range policy.Directions {
		if p.Types&d == 0 {
			continue
		}
		i := isolation{p.Subject.Namespace, d}
		if s.isolates[i] += n; s.isolates[i] == 0 {
			delete(s.isolates, i)
		}
	}
	s.wakeDoubtful(p.Subject.Namespace)
}

func (s *subjects) wakeDoubtful(namespace string) {
	for iface := range s.doubtful[namespace] {
		s.dirtyIfaces.add(iface)
	}
}

// relabel takes over a namespace whose labels changed, and wakes its endpoints.
func (s *subjects) relabel(name string) {
	if ns := s.labels.index.Namespace(name); ns.Known {
		s.endpoints.SetNamespace(name, ns.Labels)
	} else {
		s.endpoints.RemoveNamespace(name)
	}
	for iface := range s.endpoints.In(name) {
		s.dirtyIfaces.add(iface)
	}
	s.wakeDoubtful(name)
}

// reindexEndpoint takes over an endpoint whose attachment, pod or namespace changed.
func (s *subjects) reindexEndpoint(iface string) {
	ep := s.in.endpoints.now[iface]
	if ep == nil {
		s.endpoints.Remove(iface)
		return
	}
	ns := ep.Handle.Namespace
	pod := s.labels.localPod(podOf(ep))
	if pod == nil {
		s.endpoints.Remove(iface)
	} else {
		s.endpoints.Set(iface, ns, pod.Labels)
	}
	if pod == nil || !s.labels.index.Namespace(ns).Known {
		s.doubtful.add(ns, iface)
	} else {
		s.doubtful.remove(ns, iface)
	}
}

// rejudge asks all policies about one endpoint.
func (s *subjects) rejudge(iface string) {
	s.dirtyIfaces.add(iface)
	for name := range s.byIface[iface] {
		s.byPolicy.remove(name, iface)
		s.dirtyPolicies.add(name)
	}
	delete(s.byIface, iface)
	if ns, l, judged := s.endpoints.Get(iface); judged {
		for name := range s.policies.Matching(ns, l) {
			s.link(name, iface)
		}
	}
}

func (s *subjects) unlinkPolicy(name string) {
	for iface := range s.byPolicy[name] {
		s.byIface.remove(iface, name)
		s.dirtyIfaces.add(iface)
	}
	delete(s.byPolicy, name)
}

func (s *subjects) link(name, iface string) {
	s.byPolicy.add(name, iface)
	s.byIface.add(iface, name)
	s.dirtyPolicies.add(name)
	s.dirtyIfaces.add(iface)
}

// doubt returns the directions in which a policy may isolate the endpoint
// without our being able to tell.
func (s *subjects) doubt(iface string, ep *event.Endpoint) policy.Direction {
	ns := s.labels.index.Namespace(ep.Handle.Namespace)
	if !s.doubtful[ns.Name].has(iface) {
		return 0
	}
	pod := s.labels.localPod(podOf(ep))
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
			pod != nil && (!byLabel || ns.Known),              // judged
			pod != nil && !p.Subject.Pods.Matches(pod.Labels): // surely not
		default:
			doubt |= p.Types
		}
	}
	return doubt
}

func (s *subjects) settle() {
	forget(&s.dirtyPolicies)
	forget(&s.dirtyIfaces)
}

// set is a set of names.
type set map[string]struct{}

func (s set) add(name string)      { s[name] = struct{}{} }
func (s set) has(name string) bool { _, ok := s[name]; return ok }

// relation holds for each name the set of names that it is related to.
type relation map[string]set

func (r relation) add(a, b string) {
	if r[a] == nil {
		r[a] = set{}
	}
	r[a].add(b)
}

func (r relation) remove(a, b string) {
	if delete(r[a], b); len(r[a]) == 0 {
		delete(r, a)
	}
}
