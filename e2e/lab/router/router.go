// Package router runs the routing daemons of a lab's routers: FRR's zebra and
// bgpd, or BIRD, each with the configuration that follows from the topology
// and with its real paths, so that vtysh and birdc work inside the machine.
package router

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/topology"
)

//go:embed frr.conf.tmpl
var frrTemplate string

//go:embed bird.conf.tmpl
var birdTemplate string

// Config is the text of a router's configuration.
func Config(r topology.Router) (string, error) {
	text := frrTemplate
	if r.Kind == topology.BIRD {
		text = birdTemplate
	}
	t, err := template.New(string(r.Kind)).Funcs(template.FuncMap{
		"masked": netip.Prefix.Masked,
		"is6":    netip.Addr.Is6,
	}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("bug: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, &r); err != nil {
		return "", fmt.Errorf("configuration of router %s: %w", r.Name, err)
	}
	return b.String(), nil
}

// Sysctls are what a router's machine needs set.
func Sysctls() map[string]string {
	return map[string]string{"net/ipv4/fib_multipath_hash_policy": "1", "net/ipv6/fib_multipath_hash_policy": "1"}
}

// Start writes the configuration of r into its machine and starts its daemons.
func Start(ctx context.Context, m *machine.Machine, r topology.Router) error {
	conf, err := Config(r)
	if err != nil {
		return err
	}
	start := startFRR
	if r.Kind == topology.BIRD {
		start = startBIRD
	}
	if err := start(ctx, m, conf, r.BFD != 0); err != nil {
		return fmt.Errorf("router %s: %w", r.Name, err)
	}
	return nil
}

// startFRR gives bgpd the whole configuration; zebra and bfdd need none.
func startFRR(ctx context.Context, m *machine.Machine, conf string, bfd bool) error {
	uid, gid, err := lookup("frr")
	if err != nil {
		return err
	}
	files := map[string]string{"/etc/frr/zebra.conf": "", "/etc/frr/bfdd.conf": "", "/etc/frr/bgpd.conf": conf, "/etc/frr/vtysh.conf": "no service integrated-vtysh-config\n"}
	if err := install(m, uid, gid, files, "/run/frr"); err != nil {
		return err
	}
	daemons := []string{"zebra", "bgpd"}
	if bfd {
		daemons = []string{"zebra", "bfdd", "bgpd"}
	}
	for _, d := range daemons {
		if d != "zebra" {
			// Without zebra's socket it learns of no interface, and tries again only after long.
			if err := waitFile(ctx, m.Path("/run/frr/zserv.api")); err != nil {
				return fmt.Errorf("zebra: %w", err)
			}
		}
		cmd := machine.Command{Args: []string{
			"/usr/lib/frr/" + d, "--config_file", "/etc/frr/" + d + ".conf", "--log", "stdout", "--vty_addr", "127.0.0.1",
		}}
		if err := m.Start(d, cmd); err != nil {
			return err
		}
	}
	return nil
}

func startBIRD(_ context.Context, m *machine.Machine, conf string, _ bool) error {
	if err := install(m, 0, 0, map[string]string{"/etc/bird/bird.conf": conf}, "/run/bird"); err != nil {
		return err
	}
	return m.Start("bird", machine.Command{Args: []string{"/usr/sbin/bird", "-f", "-c", "/etc/bird/bird.conf"}})
}

func waitFile(ctx context.Context, path string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

func install(m *machine.Machine, uid, gid int, files map[string]string, runDir string) error {
	if err := os.MkdirAll(m.Path(runDir), 0o755); err != nil {
		return err
	}
	if err := os.Chown(m.Path(runDir), uid, gid); err != nil {
		return err
	}
	for path, text := range files {
		p := m.Path(path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func lookup(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid, nil
}

// Show runs the router's own command line with one command, as `show bgp`.
func Show(ctx context.Context, m *machine.Machine, kind topology.Kind, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "/usr/bin/vtysh", "-c", command)
	if kind == topology.BIRD {
		cmd = exec.CommandContext(ctx, "/usr/sbin/birdc", command)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Run(cmd); err != nil {
		return out.String(), fmt.Errorf("router %s: %s: %w: %s", m.Name, command, err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), nil
}

// Established is the state of a session over which routes are exchanged.
const Established = "Established"

// Sessions returns the state of each of the router's sessions by its name.
func Sessions(ctx context.Context, m *machine.Machine, r topology.Router) (map[string]string, error) {
	if r.Kind == topology.BIRD {
		out, err := Show(ctx, m, r.Kind, "show protocols")
		return birdSessions(out), err
	}
	out, err := Show(ctx, m, r.Kind, "show bgp neighbors json")
	if err != nil {
		return nil, err
	}
	return frrSessions(out, r)
}

// birdSessions reads lines as "b1_4 BGP --- up 12:00:00.000 Established".
func birdSessions(out string) map[string]string {
	states := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "BGP" {
			states[f[0]] = f[5]
		}
	}
	return states
}

func frrSessions(out string, r topology.Router) (map[string]string, error) {
	var peers map[string]struct {
		State string `json:"bgpState"`
	}
	if err := json.Unmarshal([]byte(out), &peers); err != nil {
		return nil, fmt.Errorf("router %s: show bgp neighbors: %w", r.Name, err)
	}
	states := map[string]string{}
	for _, s := range slices.Concat(r.Nodes, r.Spine) {
		states[s.Name] = peers[s.Peer.String()].State
	}
	return states, nil
}
