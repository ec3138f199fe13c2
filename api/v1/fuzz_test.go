package v1

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// Whatever the schemas accept, a client can read, and it is as well formed as
// the types promise: who converts a policy has no use for a second opinion about
// numbers and prefixes.
func FuzzAcceptedObjectsAreWellFormed(f *testing.F) {
	kinds := loadSchemas(f)
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		f.Fatal(err)
	}
	for _, pattern := range []string{"testdata/valid/*.yaml", "../../docs/examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no manifests match %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			for _, doc := range strings.Split(string(text), "\n---\n") {
				f.Add(doc)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, ok := readObject(text)
		if !ok {
			return
		}
		kind, _ := o["kind"].(string)
		k, ok := kinds[kind]
		if !ok || len(k.create(t.Context(), o)) > 0 {
			return
		}
		typed, err := scheme.New(GroupVersion.WithKind(kind))
		if err != nil {
			t.Fatal(err)
		}
		// Metadata is the API server's own to check, before any of this.
		delete(o, "metadata")
		stored, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(stored, typed); err != nil {
			t.Fatalf("accepted, but not to be read: %v\n%s", err, stored)
		}
		wellFormed(t, typed)
	})
}

// readObject decodes a manifest as the API server does, if it is one of ours.
func readObject(text string) (object, bool) {
	raw, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, false
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil || o["apiVersion"] != GroupVersion.String() {
		return nil, false
	}
	meta, ok := o["metadata"].(object)
	if !ok {
		return nil, false
	}
	_, named := meta["name"].(string)
	return o, named
}

func wellFormed(t *testing.T, o runtime.Object) {
	t.Helper()
	switch o := o.(type) {
	case *NetworkPolicy:
		policyWellFormed(t, &o.Spec.PolicySpec)
	case *GlobalNetworkPolicy:
		policyWellFormed(t, &o.Spec.PolicySpec)
		if o.Spec.PreDNAT && o.Spec.DoNotTrack || (o.Spec.PreDNAT || o.Spec.DoNotTrack) && !o.Spec.ApplyOnForward {
			t.Errorf("preDNAT %t, doNotTrack %t, applyOnForward %t", o.Spec.PreDNAT, o.Spec.DoNotTrack, o.Spec.ApplyOnForward)
		}
	case *NetworkSet:
		netsWellFormed(t, 0, o.Spec.Nets)
	case *GlobalNetworkSet:
		netsWellFormed(t, 0, o.Spec.Nets)
	case *HostEndpoint:
		for _, text := range o.Spec.ExpectedIPs {
			if a, err := netip.ParseAddr(string(text)); err != nil || a.String() != string(text) {
				t.Errorf("expected IP %q: %v", text, err)
			}
		}
	}
}

func policyWellFormed(t *testing.T, s *PolicySpec) {
	t.Helper()
	if s.Tier == "" || s.Enforcement == "" {
		t.Errorf("tier %q, enforcement %q, want the defaults", s.Tier, s.Enforcement)
	}
	for _, rules := range [][]Rule{s.Ingress, s.Egress} {
		for i := range rules {
			ruleWellFormed(t, &rules[i])
		}
	}
}

func ruleWellFormed(t *testing.T, r *Rule) {
	t.Helper()
	for _, p := range []*intstr.IntOrString{r.Protocol, r.NotProtocol} {
		if p != nil && p.Type == intstr.Int && (p.IntVal < 1 || p.IntVal > 255) {
			t.Errorf("protocol %d", p.IntVal)
		}
	}
	for _, e := range []RuleEnd{r.Source, r.Destination} {
		netsWellFormed(t, r.IPVersion, e.Nets)
		netsWellFormed(t, r.IPVersion, e.NotNets)
		for _, p := range append(e.Ports, e.NotPorts...) {
			if !portWellFormed(p) {
				t.Errorf("port %v", p)
			}
			if r.Protocol == nil {
				t.Errorf("port %v without a protocol", p)
			}
		}
	}
}

func netsWellFormed(t *testing.T, ipVersion int32, nets []Net) {
	t.Helper()
	for _, text := range nets {
		p, err := netip.ParsePrefix(string(text))
		if err != nil || p.Masked().String() != string(text) {
			t.Errorf("net %q: %v", text, err)
		}
		if ipVersion != 0 && p.Addr().Is4() != (ipVersion == 4) {
			t.Errorf("net %q in a rule of IP version %d", text, ipVersion)
		}
	}
}

var portName = regexp.MustCompile(`^[a-z0-9-]{1,15}$`)

// portWellFormed leaves out what the schema does not know: that the first of a
// range is not above the last.
func portWellFormed(p intstr.IntOrString) bool {
	if p.Type == intstr.Int {
		return p.IntVal >= 1 && p.IntVal <= 65535
	}
	if first, last, found := strings.Cut(p.StrVal, ":"); found {
		a, err := strconv.ParseUint(first, 10, 32)
		b, err2 := strconv.ParseUint(last, 10, 16)
		return err == nil && err2 == nil && a > 0 && b > 0
	}
	_, err := strconv.Atoi(p.StrVal)
	return err != nil && portName.MatchString(p.StrVal)
}
