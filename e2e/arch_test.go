// Package e2e holds what concerns the repository as a whole; this file is its
// import law.
package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/koratnet/korat/"

// A law forbids packages that match From to import, directly or through other
// packages of this module, anything that matches Never. Why is what a reviewer
// would say.
type law struct {
	From, Never, Why string
}

var laws = []law{
	{`^(policy|ipam|bgp|bgp/bfd)$|^policy/`, `^felix/`, "policy, ipam and bgp are roots: felix builds on them"},
	{
		`^(policy|policy/(selector|match|compile|ir|eval)|ipam|ipam/(block|assign)|bgp|felix/(event|desired|delta|calc|floating))$`,
		`^(k8s\.io|sigs\.k8s\.io|github\.com/(vishvananda|osrg|google/nftables|coreos))`, "the core is pure: no client, no kernel, no speaker",
	},
	{`^felix/(calc|desired|event|floating)$|^policy/`, `^(sync|sync/atomic|os|net|log/slog|context)$`, "the core does no I/O and takes no lock"},
	{`^felix/(kernel/.*|bandwidth|iptables|nft|ebpf)$`, `^felix/(calc|watch|event)$`, "kernel packages know desired state only"},
	{`.*`, `^github\.com/osrg/gobgp`, "GoBGP's types stop at bgp/gobgp"},
	{`.*`, `^github\.com/vishvananda/netlink$`, "netlink stops at the packages that program or read the kernel"},
	{`.*`, `^k8s\.io/client-go`, "the API server is spoken to at few doors"},
}

// doors are the packages that may import, themselves, what the law forbids to
// everybody else. The laws from `.*` are about direct imports.
var doors = map[string]string{
	`^github\.com/osrg/gobgp`:           `^bgp/gobgp$`,
	`^github\.com/vishvananda/netlink$`: `^felix/(kernel/.*|nft|pod|netmon|ebpf|iptables)$|^e2e/|^bgp/gobgp$`,
	`^k8s\.io/client-go`:                `^felix/(kube|watch|report|controller)$|^ipam/kube$|^cmd/|^e2e/`,
}

type pkg struct {
	path    string
	imports []string
}

func TestImportLaw(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]pkg{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkgs[f[0]] = pkg{f[0], f[1:]}
	}
	for _, l := range laws {
		from, never := regexp.MustCompile(l.From), regexp.MustCompile(l.Never)
		door := doors[l.Never]
		for _, p := range pkgs {
			name := strings.TrimPrefix(p.path, module)
			if !from.MatchString(name) {
				continue
			}
			if door != "" {
				if !regexp.MustCompile(door).MatchString(name) {
					report(t, p, p.imports, never, l.Why)
				}
				continue
			}
			report(t, p, reach(pkgs, p.path), never, l.Why)
		}
	}
}

// TestKernelPackagesAreIslands: reconcilers of one kind of object know no other.
func TestKernelPackagesAreIslands(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"felix/kernel/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	shared := regexp.MustCompile(`felix/kernel/(nlsock|owned|kerneltest)$`)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		for _, imp := range f[1:] {
			if strings.HasPrefix(imp, module+"felix/kernel/") && !shared.MatchString(imp) {
				t.Errorf("%s imports %s: kernel packages do not know each other", f[0], imp)
			}
		}
	}
}

// reach returns all that path imports: of this module transitively, of others directly.
func reach(pkgs map[string]pkg, path string) []string {
	seen := map[string]bool{}
	var all []string
	var walk func(string)
	walk = func(p string) {
		for _, imp := range pkgs[p].imports {
			if seen[imp] {
				continue
			}
			seen[imp] = true
			all = append(all, imp)
			walk(imp)
		}
	}
	walk(path)
	return all
}

func report(t *testing.T, p pkg, imports []string, never *regexp.Regexp, why string) {
	t.Helper()
	for _, imp := range imports {
		if name := strings.TrimPrefix(imp, module); never.MatchString(name) {
			t.Errorf("%s imports %s: %s", p.path, imp, why)
		}
	}
}
