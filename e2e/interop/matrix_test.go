package interop

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	all    = flag.Bool("all", false, "run every cell of the matrix, with GoBGP's daemon too")
	update = flag.Bool("update", false, "write the table to docs/bgp-interop.md, with -all")
)

// feature is a row of the matrix.
type feature struct {
	name  string
	quick bool // runs without -all
	test  func(c *cell)
	// cannot says why a daemon in a role cannot do it, by "daemon" or "daemon/role" or
	// "role".
	cannot map[string]string
}

// cell is a feature with a daemon in a role, in a lab of its own.
type cell struct {
	*lab
	daemon
	role role
	n1   *node
	r1   *machine
}

var daemons = []struct {
	name string
	daemon
}{{"FRR", frrDaemon{}}, {"BIRD", birdDaemon{}}, {"GoBGP", gobgpDaemon{}}}

var roles = []role{tor, reflector}

func (f feature) reason(daemon string, r role) string {
	return cmp.Or(f.cannot[daemon+"/"+string(r)], f.cannot[daemon], f.cannot[string(r)])
}

// sample is the cell that runs without -all: FRR as top of rack and BIRD as
// reflector, if they can.
func (f feature) sample(daemon string) string {
	r := map[string]role{"FRR": tor, "BIRD": reflector}[daemon]
	if r == tor && f.cannot[string(tor)] != "" {
		r = reflector
	}
	return daemon + "/" + string(r)
}

func TestMatrix(t *testing.T) {
	var table results
	t.Run("cells", func(t *testing.T) {
		for _, f := range features {
			for _, d := range daemons {
				for _, r := range roles {
					if !*all && (!f.quick || d.name+"/"+string(r) != f.sample(d.name)) {
						continue
					}
					if why := f.reason(d.name, r); why != "" {
						table.set(f.name, d.name, r, why)
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s", f.name, d.name, r), func(t *testing.T) {
						t.Parallel()
						l := newLab(t)
						c := &cell{lab: l, daemon: d.daemon, role: r, n1: l.node("n1"), r1: l.machine("r1")}
						f.test(c)
						table.set(f.name, d.name, r, "yes")
					})
				}
			}
		}
	})
	if *all && *update && !t.Failed() {
		if err := os.WriteFile("../../docs/bgp-interop.md", []byte(table.page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// results are the words of each cell.
type results struct {
	mu sync.Mutex // guards m
	m  map[string]string
}

func (r *results) set(feature, daemon string, in role, words string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[string]string{}
	}
	r.m[feature+"/"+daemon+"/"+string(in)] = words
}

const intro = `# BGP with other routers

What Korat's speaker does together with the daemons that are met in racks. Each cell
is a test that ran against the real daemon (FRR 8.4, BIRD 2.0, GoBGP 4.8) in network
namespaces, as top-of-rack switch (another AS) and as route reflector (the same AS):
` + "`make interop`" + ` runs them and writes this page. A number is a reason, below the table.

`

// page is the table in Markdown. Reasons are footnotes.
func (r *results) page() string {
	var b strings.Builder
	b.WriteString(intro + "| |")
	for _, d := range daemons {
		for _, role := range roles {
			fmt.Fprintf(&b, " %s, %s |", d.name, role)
		}
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(daemons)*len(roles)) + "\n")
	var reasons []string
	for _, f := range features {
		fmt.Fprintf(&b, "| %s |", f.name)
		for _, d := range daemons {
			for _, role := range roles {
				words := r.m[f.name+"/"+d.name+"/"+string(role)]
				if words != "yes" {
					if !slices.Contains(reasons, words) {
						reasons = append(reasons, words)
					}
					words = fmt.Sprintf("no (%d)", slices.Index(reasons, words)+1)
				}
				fmt.Fprintf(&b, " %s |", words)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for i, words := range reasons {
		fmt.Fprintf(&b, "%d. %s\n", i+1, words)
	}
	return b.String()
}
