package eval

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/policy"
)

var update = flag.Bool("update", false, "write the connectivity tables")

// TestRecipes evaluates the policies that users know, testdata/recipes/*.yaml,
// in one small world, and compares who reaches whom with the table beside each
// file. The first line of a file says which ports to try. Every cell must also
// be the second opinion's.
func TestRecipes(t *testing.T) {
	files, err := filepath.Glob("testdata/recipes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("recipes: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			o, probes := recipe(t, file)
			got := ""
			for _, p := range probes {
				got += table(t, o, p)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".table"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// recipeWorld is where all recipes are tried: a shop with three tiers, a team
// that watches it, cluster DNS, and two machines outside the cluster.
func recipeWorld() *opinion {
	pod := func(i byte, namespace, name string, labels map[string]string) opinionPod {
		return opinionPod{namespace: namespace, name: name, node: "node", labels: labels, addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, i})}}
	}
	return &opinion{
		namespaces: map[string]map[string]string{
			"shop":        {"kubernetes.io/metadata.name": "shop"},
			"ops":         {"kubernetes.io/metadata.name": "ops", "team": "operations"},
			"kube-system": {"kubernetes.io/metadata.name": "kube-system"},
		},
		pods: []opinionPod{
			pod(1, "shop", "web", map[string]string{"app": "shop", "role": "web"}),
			pod(2, "shop", "api", map[string]string{"app": "shop", "role": "api"}),
			pod(3, "shop", "db", map[string]string{"app": "shop", "role": "db"}),
			pod(4, "ops", "monitor", map[string]string{"type": "monitoring"}),
			pod(5, "ops", "shell", nil),
			pod(6, "kube-system", "dns", map[string]string{"k8s-app": "kube-dns"}),
		},
	}
}

var recipeOutside = map[string]netip.Addr{"internet": ip("203.0.113.9"), "office": ip("192.168.7.9")}

type probe struct {
	protocol policy.Protocol
	port     uint16
}

// recipe reads the manifests of a file and the probes in its first line.
func recipe(t *testing.T, file string) (*opinion, []probe) {
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
		np := &networkingv1.NetworkPolicy{}
		if err := yaml.UnmarshalStrict([]byte(doc), np); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		o.policies = append(o.policies, np)
	}
	return o, probes
}

// table tries one port between all: rows are sources, columns destinations.
func table(t *testing.T, o *opinion, p probe) string {
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
	c := fromOpinion(o)
	text := fmt.Sprintf("%-10s", strings.TrimPrefix(fmt.Sprintf("%d/%s", p.port, p.protocol), "0/"))
	for _, to := range names {
		text += fmt.Sprintf(" %-8s", to)
	}
	text += "\n"
	for _, from := range names {
		text += fmt.Sprintf("%-10s", from)
		for _, to := range names {
			packet := Packet{Src: addrs[from], Dst: addrs[to], Protocol: p.protocol, DstPort: p.port}
			v := c.Verdict(packet)
			if second := o.allows(packet.Src, packet.Dst, corev1.Protocol(p.protocol.String()), int(p.port)); second != (v.Action == policy.Allow) {
				t.Errorf("%s: %s; the second opinion is %v", packet, v, second)
			}
			text += " " + map[policy.Action]string{policy.Allow: "yes     ", policy.Deny: "-       "}[v.Action]
		}
		text += "\n"
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n") + "\n"
}
