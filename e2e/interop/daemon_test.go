package interop

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"text/template"
	"time"

	"github.com/koratnet/korat/bgp"
)

const (
	nodeAS   = 64512
	torAS    = 65001
	passwort = "seven-segment"
)

// spec is how a router is configured, in no daemon's words.
type spec struct {
	ID         netip.Addr
	AS         uint32
	Reflect    bool // neighbours are clients, in the router's AS
	Neighbours []neighbour
	// Networks and Networks6 are what the router originates, with the community
	// 65001:77 and the large community 65001:1:2.
	Networks, Networks6 []string
	// Restart and LongLived are the times of graceful restart in seconds; LongLived 0: none.
	Restart, LongLived int
}

// neighbour is a session of a router.
type neighbour struct {
	Addr, Local netip.Addr
	AS          uint32
	Password    string
	GTSM        bool
	BFD         bool
	BFDGraceful bool // the end of BFD is taken for a restart, where the daemon can choose: BIRD
	V4, V6      bool // families
	Extended    bool // next hops of IPv4 are IPv6 (RFC 8950)
	AddPaths    bool
	Client      bool
	Hops        int // how far away it may be at most; 0: on the link
}

// route is what a router knows of a prefix from one neighbour.
type route struct {
	NextHop     string
	Communities string // standard and large, in the order of the wire
	Stale       bool
	Path        string // AS numbers
}

// daemon is a kind of router.
type daemon interface {
	// start runs the daemon on a machine until end.
	start(m *machine, s spec) (run router)
}

// router is a daemon that runs.
type router interface {
	end(os.Signal)
	// again starts the daemon anew after end.
	again()
	// routes returns what neighbours told, by prefix.
	routes(v6 bool) map[string]route
	established(peer netip.Addr) bool
	// refresh asks a neighbour to tell all again; the answer is the daemon's words.
	refresh(peer netip.Addr) string
	// canRefresh reports whether the neighbour said that it can be asked so.
	canRefresh(peer netip.Addr) bool
	// bfd returns the state of the BFD session with a neighbour.
	bfd(peer netip.Addr) string
}

// render fills in a template of a configuration.
func render(t *testing.T, text string, s spec) string {
	t.Helper()
	tmpl, err := template.New("").Funcs(template.FuncMap{"name": protocol}).Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// output runs a command in the test's own namespace.
func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s: %v", out, err)
	}
	return string(out)
}

func waitFile(t *testing.T, path string) {
	t.Helper()
	eventually(t, path, func() string {
		if _, err := os.Stat(path); err != nil {
			return err.Error()
		}
		return ""
	})
}

// role is what a router is to the nodes.
type role string

const (
	tor       role = "top of rack"
	reflector role = "reflector"
)

// spec is a router's in this role, whose neighbours are nodes.
func (r role) spec(m *machine, nodes ...*node) spec {
	s := spec{ID: m.addr, AS: torAS, Restart: 60, Networks: []string{"203.0.113.0/25"}, Networks6: []string{"2001:db8:f::/48"}}
	if r == reflector {
		s.AS, s.Reflect = nodeAS, true
	}
	for _, n := range nodes {
		s.Neighbours = append(s.Neighbours, neighbour{Addr: n.addr, Local: m.addr, AS: nodeAS, V4: true, Client: s.Reflect})
	}
	return s
}

// peer is the router as a node's peer in this role.
func (r role) peer(m *machine, n *node) bgp.Peer {
	p := bgp.Peer{
		Name: "bgppeer/" + m.name, Addr: m.addr, Port: 179, ASN: torAS, LocalAddr: n.addr,
		Hold: 90 * time.Second, Keepalive: 30 * time.Second, Advertise: bgp.Blocks,
	}
	if r == reflector {
		p.ASN = nodeAS
	}
	return p
}

func block(p string) bgp.Path { return bgp.Path{Prefix: netip.MustParsePrefix(p), Kind: bgp.Blocks} }

func config(peers ...bgp.Peer) bgp.Config { return bgp.Config{ASN: nodeAS, Peers: peers} }
