package eval

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/hack/golden"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// TestRecipes evaluates the policies that users know, testdata/recipes/*.yaml,
// in one small world, and compares who reaches whom with the table beside each
// file. The first line of a file says which ports to try. Every cell must also
// be the second opinion's. Where staged policies would decide otherwise, a cell
// says so behind an arrow.
func TestRecipes(t *testing.T) {
	files, err := filepath.Glob("testdata/recipes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("recipes: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			o, probes := recipe(t, file)
			if len(o.clusters)+len(o.own)+len(o.global)+len(o.policies) == 0 {
				t.Error("no policies")
			}
			got := ""
			for _, p := range probes {
				got += table(t, o, p)
			}
			golden.Compare(t, strings.TrimSuffix(file, ".yaml")+".table", got)
		})
	}
}

// recipeWorld is where all recipes are tried: a shop with three tiers, a team
// that watches it, cluster DNS, and two machines outside the cluster. Every pod
// has a service account of its name.
func recipeWorld() *tieredOpinion {
	pod := func(i byte, namespace, name string, labels map[string]string, ports ...opinionPort) opinionPod {
		addrs := []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, i})}
		return opinionPod{namespace: namespace, name: name, node: "node", labels: labels, addrs: addrs, account: name, ports: ports}
	}
	api := netip.AddrFrom4([4]byte{10, 244, 0, 2})
	o := opinion{
		namespaces: map[string]map[string]string{
			"shop":        {"kubernetes.io/metadata.name": "shop"},
			"ops":         {"kubernetes.io/metadata.name": "ops", "team": "operations"},
			"kube-system": {"kubernetes.io/metadata.name": "kube-system"},
		},
		pods: []opinionPod{
			pod(1, "shop", "web", map[string]string{"app": "shop", "role": "web"}),
			pod(2, "shop", "api", map[string]string{"app": "shop", "role": "api"}, opinionPort{"metrics", "TCP", 9101}),
			pod(3, "shop", "db", map[string]string{"app": "shop", "role": "db"}, opinionPort{"metrics", "TCP", 9100}),
			pod(4, "ops", "monitor", map[string]string{"type": "monitoring"}),
			pod(5, "ops", "shell", nil),
			pod(6, "kube-system", "dns", map[string]string{"k8s-app": "kube-dns"}),
		},
	}
	return &tieredOpinion{
		opinion: o, tiers: map[string]v1.TierSpec{}, selects: map[string]func(map[string]string) bool{},
		services: map[string][]ServiceEnd{"shop/api": {{api, policy.TCP, 80}}},
	}
}

var recipeOutside = map[string]netip.Addr{"internet": ip("203.0.113.9"), "office": ip("192.168.7.9")}

type probe struct {
	protocol policy.Protocol
	port     uint16
}

// recipe reads the manifests of a file and the probes in its first line.
func recipe(t *testing.T, file string) (*tieredOpinion, []probe) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	words, ok := strings.CutPrefix(first, "# probe: ")
	if !ok {
		t.Fatalf("%s begins with %q, want \"# probe: \"", file, first)
	}
	var probes []probe
	for _, w := range strings.Fields(words) {
		var p probe
		protocols := map[string]policy.Protocol{"TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP, "ICMP": policy.ICMP}
		port, name, _ := strings.Cut(w, "/")
		if _, err := fmt.Sscan(port, &p.port); err != nil || protocols[name] == 0 {
			t.Fatalf("%s: probe %q: %v", file, w, err)
		}
		p.protocol = protocols[name]
		probes = append(probes, p)
	}
	o := recipeWorld()
	for _, doc := range strings.Split(string(text), "\n---\n") {
		if err := o.take([]byte(doc)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return o, probes
}

// take adds an object.
func (o *tieredOpinion) take(doc []byte) error {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &meta); err != nil {
		return err
	}
	switch meta.APIVersion + " " + meta.Kind {
	case "networking.k8s.io/v1 NetworkPolicy":
		return add(doc, func(p *networkingv1.NetworkPolicy) { o.policies = append(o.policies, p) })
	case "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy":
		return add(doc, func(p *cnp.ClusterNetworkPolicy) { o.clusters = append(o.clusters, p) })
	case "korat.dev/v1 Tier":
		return add(doc, func(t *v1.Tier) { o.tiers[t.Name] = t.Spec })
	case "korat.dev/v1 GlobalNetworkSet":
		return add(doc, func(s *v1.GlobalNetworkSet) {
			set := opinionSet{labels: s.Labels}
			for _, n := range s.Spec.Nets {
				set.nets = append(set.nets, netip.MustParsePrefix(string(n)))
			}
			o.sets = append(o.sets, set)
		})
	case "korat.dev/v1 NetworkPolicy":
		return add(doc, func(p *v1.NetworkPolicy) {
			p.Spec.Tier = cmp.Or(p.Spec.Tier, policy.DefaultTier)
			o.own = append(o.own, p)
			o.mean(&p.Spec.PolicySpec)
		})
	case "korat.dev/v1 GlobalNetworkPolicy":
		return add(doc, func(p *v1.GlobalNetworkPolicy) {
			p.Spec.Tier = cmp.Or(p.Spec.Tier, policy.DefaultTier)
			o.global = append(o.global, p)
			o.mean(&p.Spec.PolicySpec, p.Spec.NamespaceSelector)
		})
	}
	return fmt.Errorf("unknown kind %s %s", meta.APIVersion, meta.Kind)
}

func add[T any](doc []byte, to func(*T)) error {
	o := new(T)
	if err := yaml.UnmarshalStrict(doc, o); err != nil {
		return err
	}
	to(o)
	return nil
}

// mean notes what the selectors of a policy mean.
func (o *tieredOpinion) mean(s *v1.PolicySpec, texts ...string) {
	texts = append(texts, s.Selector, s.ServiceAccountSelector)
	for _, r := range slices.Concat(s.Ingress, s.Egress) {
		for _, e := range []v1.RuleEnd{r.Source, r.Destination} {
			texts = append(texts, e.Selector, e.NotSelector, e.NamespaceSelector)
		}
	}
	for _, text := range texts {
		if sel, err := selector.Parse(text); err == nil {
			o.selects[text] = func(l map[string]string) bool { return sel.Matches(selector.MakeLabels(l)) }
		}
	}
}

// table tries one port between all: rows are sources, columns destinations.
func table(t *testing.T, o *tieredOpinion, p probe) string {
	t.Helper()
	names := []string{}
	addrs := map[string]netip.Addr{}
	for _, pod := range o.pods {
		names = append(names, pod.name)
		addrs[pod.name] = pod.addrs[0]
	}
	for name, a := range recipeOutside {
		names = append(names, name)
		addrs[name] = a
	}
	slices.Sort(names[len(o.pods):])
	c := fromTiers(t, o)
	text := fmt.Sprintf("%-10s", strings.TrimPrefix(fmt.Sprintf("%d/%s", p.port, p.protocol), "0/"))
	for _, to := range names {
		text += fmt.Sprintf(" %-8s", to)
	}
	text += "\n"
	for _, from := range names {
		text += fmt.Sprintf("%-10s", from)
		for _, to := range names {
			packet := Packet{Src: addrs[from], Dst: addrs[to], Protocol: p.protocol, DstPort: p.port}
			f := flow{src: packet.Src, dst: packet.Dst, protocol: p.protocol.String(), dstPort: int(p.port), icmpType: -1}
			if p.protocol == policy.ICMP { // the port of a probe is the type
				packet.Type, packet.DstPort, f.icmpType = uint8(p.port), 0, int(p.port)
			}
			v := c.Verdict(packet)
			staged := v
			if v.Pending != nil {
				staged = *v.Pending
			}
			if o.allows(f, false) != (v.Action == policy.Allow) || o.allows(f, true) != (staged.Action == policy.Allow) {
				t.Errorf("%s: %s, pending %s; the second opinion is %v, %v", packet, v, staged, o.allows(f, false), o.allows(f, true))
			}
			text += " " + map[policy.Action]string{policy.Allow: "yes", policy.Deny: "-  "}[v.Action]
			if staged.Action != v.Action {
				text += " ->" + map[policy.Action]string{policy.Allow: "yes", policy.Deny: "-  "}[staged.Action][:2]
			} else {
				text += "     "
			}
		}
		text += "\n"
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n") + "\n"
}
