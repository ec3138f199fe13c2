// Package topology describes a lab: racks of nodes, their routers, the links
// between routers and the hosts outside. It parses and checks the file and
// derives every address and every BGP session from it; it touches nothing.
package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"sigs.k8s.io/yaml"
)

// Topology is a lab's whole plan, as written in its file. All its subnets are of
// one family, that of the pool; those with a 6 in their names add IPv6 to a lab
// of IPv4.
type Topology struct {
	// Management is the segment of the API server; every node has a leg in it.
	Management Management `json:"management"`
	// Pool is the range that pods get their addresses from.
	Pool netip.Prefix `json:"pool"`
	// Pool6 is a second one, for IPv6. Optional: without it pods have one address,
	// and nodes have sessions over that family only.
	Pool6 netip.Prefix `json:"pool6,omitempty"`
	// BFD is the interval in milliseconds at which routers, and nodes and routers,
	// look whether the other is there; three looks may fail. 0: no BFD.
	BFD int `json:"bfd,omitempty"`
	// Racks are the groups of nodes that share a subnet and routers.
	Racks []Rack `json:"racks"`
	// Spine are the links between routers of different racks.
	Spine []Link `json:"spine,omitempty"`
	// Hosts are machines outside the cluster.
	Hosts []Host `json:"hosts,omitempty"`
}

// Management is the segment that carries only traffic to the API server.
type Management struct {
	Subnet netip.Prefix `json:"subnet"`
}

// Rack is one layer-2 segment with nodes and one or more routers.
type Rack struct {
	Name   string       `json:"name"`
	Subnet netip.Prefix `json:"subnet"`
	// Subnet6 is optional; the zero Prefix means no IPv6 in the rack.
	Subnet6 netip.Prefix `json:"subnet6,omitempty"`
	// ASNumber is that of the rack's nodes.
	ASNumber uint32 `json:"asNumber"`
	// Advertise is what the routers want to hear: Blocks, Hosts or both.
	Advertise []string `json:"advertise"`
	ToRs      []ToR    `json:"tors"`
	Nodes     []string `json:"nodes"`
}

// Kind is the implementation of a router.
type Kind string

// The routers that a lab can run.
const (
	FRR  Kind = "frr"
	BIRD Kind = "bird"
)

// ToR is a top-of-rack router.
type ToR struct {
	Name     string `json:"name"`
	Kind     Kind   `json:"kind"`
	ASNumber uint32 `json:"asNumber"`
}

// Link joins two routers, with a BGP session over it. The first router of
// Between has the lower address.
type Link struct {
	Between [2]string    `json:"between"`
	Subnet  netip.Prefix `json:"subnet"`
	Subnet6 netip.Prefix `json:"subnet6,omitempty"`
}

// Host is a machine outside the cluster, alone on a subnet behind a router.
type Host struct {
	Name    string       `json:"name"`
	ToR     string       `json:"tor"`
	Subnet  netip.Prefix `json:"subnet"`
	Subnet6 netip.Prefix `json:"subnet6,omitempty"`
}

// IPv6 reports whether the lab has no IPv4 at all.
func (t *Topology) IPv6() bool { return t.Pool.Addr().Is6() }

// Load reads and checks the file at path.
func Load(path string) (*Topology, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	t, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("topology %s: %w", path, err)
	}
	return t, nil
}

// Parse reads and checks a topology in YAML. Unknown fields are errors.
func Parse(b []byte) (*Topology, error) {
	var t Topology
	if err := yaml.UnmarshalStrict(b, &t); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return &t, nil
}

// maxName keeps a machine's name usable as the name of its port on a bridge.
const maxName = 15

// check returns all that is wrong, not only the first.
func (t *Topology) check() error {
	c := checker{t: t, names: map[string]bool{ControlPlane: true}}
	c.subnet("management", t.Management.Subnet, t.IPv6())
	c.subnet("pool", t.Pool, t.IPv6())
	c.second("pool6", t.Pool6)
	for _, r := range t.Racks {
		c.rack(r)
	}
	for _, l := range t.Spine {
		of := "link " + l.Between[0] + " to " + l.Between[1]
		c.subnet(of, l.Subnet, t.IPv6())
		c.second(of, l.Subnet6)
		c.tor(of, l.Between[0])
		c.tor(of, l.Between[1])
	}
	for _, h := range t.Hosts {
		of := "host " + h.Name
		c.name(h.Name)
		c.subnet(of, h.Subnet, t.IPv6())
		c.second(of, h.Subnet6)
		c.tor(of, h.ToR)
	}
	return errors.Join(c.errs...)
}

type checker struct {
	t       *Topology
	names   map[string]bool
	subnets []netip.Prefix
	errs    []error
}

func (c *checker) bad(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *checker) name(n string) {
	switch {
	case n == "" || len(n) > maxName:
		c.bad("name %q: want 1 to %d characters", n, maxName)
	case c.names[n]:
		c.bad("name %q is taken twice", n)
	}
	c.names[n] = true
}

// second checks a subnet that adds IPv6, which is optional.
func (c *checker) second(of string, p netip.Prefix) {
	switch {
	case !p.IsValid():
	case c.t.IPv6():
		c.bad("%s: subnet %s: the lab is one of IPv6 already", of, p)
	default:
		c.subnet(of, p, true)
	}
}

// subnet checks a subnet of one family.
func (c *checker) subnet(of string, p netip.Prefix, v6 bool) {
	if !p.IsValid() || p != p.Masked() || p.Addr().Is6() != v6 {
		c.bad("%s: subnet %s: want a network address of the right family", of, p)
		return
	}
	if i := slices.IndexFunc(c.subnets, p.Overlaps); i >= 0 {
		c.bad("%s: subnet %s overlaps %s", of, p, c.subnets[i])
	}
	c.subnets = append(c.subnets, p)
}

func (c *checker) tor(of, n string) {
	if c.t.ToR(n) == nil {
		c.bad("%s: there is no router %q", of, n)
	}
}

func (c *checker) rack(r Rack) {
	c.subnet("rack "+r.Name, r.Subnet, c.t.IPv6())
	c.second("rack "+r.Name, r.Subnet6)
	if r.ASNumber == 0 || len(r.ToRs) == 0 {
		c.bad("rack %s: want an asNumber and at least one router", r.Name)
	}
	for _, tor := range r.ToRs {
		c.name(tor.Name)
		if tor.ASNumber == 0 || tor.Kind != FRR && tor.Kind != BIRD {
			c.bad("router %s: want an asNumber and kind %s or %s, have %q", tor.Name, FRR, BIRD, tor.Kind)
		}
	}
	for _, n := range r.Nodes {
		c.name(n)
	}
	for _, a := range r.Advertise {
		if a != "Blocks" && a != "Hosts" {
			c.bad("rack %s: advertise %q: want Blocks or Hosts", r.Name, a)
		}
	}
}
