package gobgp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// router is a BGP daemon in a namespace.
type router struct {
	t   testing.TB
	ns  *kerneltest.Namespace
	dir string
	run *exec.Cmd
}

func newRouter(t testing.TB, ns *kerneltest.Namespace) *router {
	t.Helper()
	// Not t.TempDir: the daemons' users may not enter that.
	dir, err := os.MkdirTemp("", "korat-router-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &router{t: t, ns: ns, dir: dir}
}

func give(t testing.TB, dir, name string) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID, os.Chown(dir, uid, gid)); err != nil {
		t.Fatal(err)
	}
}

// daemon starts a program in the router's namespace, to be killed at the end.
func (r *router) daemon(name string, args ...string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	r.ns.Do(func() {
		if err := cmd.Start(); err != nil {
			r.t.Fatalf("start %s: %v", name, err)
		}
	})
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("%s: %s", name, log)
		}
	})
	return cmd
}

func (r *router) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// frr starts zebra and bgpd.
func frr(t testing.TB, ns *kerneltest.Namespace, config string) *router {
	t.Helper()
	r := newRouter(t, ns)
	give(t, r.dir, "frr") // the daemons run as this user
	zserv := filepath.Join(r.dir, "zserv.api")
	common := []string{"-u", "frr", "-g", "frr", "-P", "0", "--vty_socket", r.dir, "-z", zserv}
	r.daemon("/usr/lib/frr/zebra", append(common, "-i", filepath.Join(r.dir, "zebra.pid"), "-f", r.file("zebra.conf", ""))...)
	r.waitFor(zserv)
	r.run = r.daemon("/usr/lib/frr/bgpd", append(common, "-i", filepath.Join(r.dir, "bgpd.pid"), "-f", r.file("bgpd.conf", config))...)
	r.waitFor(filepath.Join(r.dir, "bgpd.vty"))
	return r
}

func (r *router) waitFor(path string) {
	r.t.Helper()
	eventually(r.t, path, true, func() any {
		_, err := os.Stat(path)
		return err == nil
	})
}

func (r *router) vtysh(commands ...string) string {
	args := []string{"--vty_socket", r.dir, "-d", "bgpd"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("vtysh", args...).Output()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// frrRoutes returns "next hop" or "next hop stale" by prefix, of the routes that
// came from peers.
func (r *router) frrRoutes(family string) map[string]string {
	var table struct {
		Routes map[string][]struct {
			Stale    bool
			PeerID   string
			NextHops []struct{ IP, Scope string }
		}
	}
	if err := json.Unmarshal([]byte(r.vtysh("show bgp "+family+" unicast json")), &table); err != nil {
		return map[string]string{"error": err.Error()}
	}
	out := map[string]string{}
	for prefix, paths := range table.Routes {
		for _, p := range paths {
			if p.PeerID == "(unspec)" {
				continue
			}
			for _, nh := range p.NextHops {
				if nh.Scope == "link-local" {
					continue
				}
				out[prefix] = strings.TrimSpace(out[prefix] + " " + nh.IP)
			}
			if p.Stale {
				out[prefix] += " stale"
			}
		}
	}
	return out
}

// stale is what frrRoutes returns of routes that are kept over a restart.
func stale(routes map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range routes {
		out[k] = v + " stale"
	}
	return out
}

// frrSessions returns how often the session with peer came up and went down.
func (r *router) frrSessions(peer string) string {
	var all map[string]struct{ ConnectionsEstablished, ConnectionsDropped int }
	if err := json.Unmarshal([]byte(r.vtysh("show bgp neighbors "+peer+" json")), &all); err != nil {
		return err.Error()
	}
	return fmt.Sprint(all[peer])
}

// bird starts BIRD.
func bird(t testing.TB, ns *kerneltest.Namespace, config string) *router {
	t.Helper()
	r := newRouter(t, ns)
	ctl := filepath.Join(r.dir, "bird.ctl")
	r.run = r.daemon("bird", "-f", "-c", r.file("bird.conf", config), "-s", ctl, "-P", filepath.Join(r.dir, "bird.pid"))
	r.waitFor(ctl)
	return r
}

func (r *router) birdc(command ...string) string {
	out, err := exec.Command("birdc", append([]string{"-r", "-s", filepath.Join(r.dir, "bird.ctl")}, command...)...).Output()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// birdRoutes is frrRoutes for BIRD, which does not show what is stale.
func (r *router) birdRoutes(protocol string) map[string]string {
	out := map[string]string{}
	var prefix string
	for line := range strings.Lines(r.birdc("show", "route", "protocol", protocol, "all")) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && strings.Contains(f[0], "/"):
			prefix = f[0]
		case len(f) > 1 && f[0] == "BGP.next_hop:":
			out[prefix] = strings.TrimSpace(out[prefix] + " " + f[1])
		}
	}
	return out
}

// birdSession is "up" or "down", or "restarts" while routes from before the
// neighbour's restart are kept: until its End-of-RIB.
func (r *router) birdSession(protocol string) string {
	out := r.birdc("show", "protocols", "all", protocol)
	switch {
	case strings.Contains(out, "graceful restart active"):
		return "restarts"
	case strings.Contains(out, "Established"):
		return "up"
	default:
		return "down"
	}
}

// deletions returns how many routes that the daemon owns in the kernel were
// deleted since the last call.
func deletions(m *kerneltest.Monitor) int {
	n := 0
	for _, change := range m.Changes() {
		if change == "delroute 186" || change == "delroute 12" { // zebra's BGP, BIRD
			n++
		}
	}
	return n
}
