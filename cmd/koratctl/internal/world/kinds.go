package world

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/convert"
)

// Kind is a kind of object that this version understands.
type Kind struct {
	APIVersion, Name string
	// Resource is the plural name by which the API server serves the kind, empty
	// for those that are read from manifests only.
	Resource   string
	Short      string // by which it can be called, too
	Namespaced bool
	add        func(*World, manifest.Object) []convert.Problem
}

// Kinds are all kinds that are understood, in the order in which a World is
// built. To understand another one is a line here.
var Kinds = []Kind{
	{"v1", "Namespace", "namespaces", "ns", false, of((*World).addNamespace)},
	{"v1", "ServiceAccount", "serviceaccounts", "sa", true, of((*World).addAccount)},
	{"v1", "Node", "nodes", "no", false, of((*World).addNode)},
	{"v1", "Pod", "pods", "po", true, of((*World).addPod)},
	{"apps/v1", "Deployment", "", "deploy", true, (*World).addWorkload},
	{"apps/v1", "ReplicaSet", "", "rs", true, (*World).addWorkload},
	{"apps/v1", "StatefulSet", "", "sts", true, (*World).addWorkload},
	{"apps/v1", "DaemonSet", "", "ds", true, (*World).addWorkload},
	{"batch/v1", "Job", "", "job", true, (*World).addWorkload},
	{"batch/v1", "CronJob", "", "cj", true, (*World).addWorkload},
	{"v1", "Service", "services", "svc", true, of((*World).addService)},
	{"discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "", true, of((*World).addSlice)},
	{"networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "knp", true, policies(convert.NetworkPolicy)},
	{"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies", "cnp", false, policies(convert.ClusterNetworkPolicy)},
	{"policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies", "anp", false, policies(convert.AdminNetworkPolicy)},
	{"policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies", "banp", false, policies(convert.BaselineAdminNetworkPolicy)},
	{"korat.dev/v1", "Tier", "tiers", "", false, of((*World).addTier)},
	{"korat.dev/v1", "NetworkPolicy", "networkpolicies", "np", true, policies(convert.KoratNetworkPolicy)},
	{"korat.dev/v1", "GlobalNetworkPolicy", "globalnetworkpolicies", "gnp", false, policies(convert.GlobalNetworkPolicy)},
	{"korat.dev/v1", "NetworkSet", "networksets", "nset", true, of((*World).addNetworkSet)},
	{"korat.dev/v1", "GlobalNetworkSet", "globalnetworksets", "gnset", false, of((*World).addGlobalNetworkSet)},
	{"korat.dev/v1", "HostEndpoint", "hostendpoints", "hep", false, of((*World).addHostEndpoint)},
}

// of makes a Kind's add of a function for its type.
func of[T any](add func(*World, *T) []convert.Problem) func(*World, manifest.Object) []convert.Problem {
	return func(w *World, o manifest.Object) []convert.Problem {
		obj, problems := decode[T](o)
		if obj == nil {
			return problems
		}
		return append(problems, add(w, obj)...)
	}
}

// policies makes a Kind's add of a conversion to a policy.
func policies[T any](read func(*T) (*policy.Policy, []convert.Problem)) func(*World, manifest.Object) []convert.Problem {
	return func(w *World, o manifest.Object) []convert.Problem {
		obj, problems := decode[T](o)
		if obj == nil {
			return problems
		}
		p, more := read(obj)
		w.Cluster.Policies = append(w.Cluster.Policies, p)
		w.Sources[p.Key] = o
		return append(problems, more...)
	}
}

// decode reads an object as the API server does. Fields that it does not know
// are problems in manifests; the cluster has none but those of its own version.
func decode[T any](o manifest.Object) (*T, []convert.Problem) {
	obj := new(T)
	strict, err := json.UnmarshalStrict(o.JSON, obj)
	if err != nil {
		return nil, []convert.Problem{{Expected: "an object of " + o.APIVersion + ", but " + err.Error(), Effect: "the object is left out"}}
	}
	if m, ok := any(obj).(metav1.Object); ok {
		m.SetNamespace(o.Namespace)
	}
	if o.File == "" {
		return obj, nil
	}
	var problems []convert.Problem
	for _, e := range strict {
		p := convert.Problem{Expected: e.Error(), Effect: "it is left out"}
		if f, ok := e.(json.FieldError); ok {
			p.Field, p.Expected = f.FieldPath(), "a field of "+o.APIVersion+" "+o.Kind+", written once"
		}
		problems = append(problems, p)
	}
	return obj, problems
}

// kindOf returns what is known of o's kind, or nil.
func kindOf(o manifest.Object) *Kind {
	for i, k := range Kinds {
		if k.APIVersion == o.APIVersion && k.Name == o.Kind {
			return &Kinds[i]
		}
	}
	return nil
}

// unknown says why o is not understood.
func unknown(o manifest.Object) (severity Severity, expected, effect string) {
	about := o.APIVersion + " " + o.Kind
	for _, k := range Kinds {
		if k.Name == o.Kind && group(k.APIVersion) == o.Group() {
			return Error, "apiVersion " + k.APIVersion, about + " is not understood by this version, the object is left out"
		}
	}
	switch {
	case strings.HasSuffix(o.Group(), "projectcalico.org"):
		return Error, "what koratctl policy convert makes of it", about + " is not understood, the object is left out"
	case strings.HasSuffix(o.Kind, "NetworkPolicy"), o.Group() == "policy.networking.k8s.io", strings.HasSuffix(o.Group(), "cilium.io"):
		return Error, "a kind of policy that is known here", about + " is not understood by this version, the object is left out"
	}
	return Note, "", about + " has nothing to do with policy, the object is left out"
}

func group(apiVersion string) string { return manifest.Object{APIVersion: apiVersion}.Group() }
