package interop

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/bgp/guarded"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// speakerEnv makes the test binary the speaker of a run directory, as
// `korat speaker` is.
const speakerEnv = "KORAT_INTEROP_SPEAKER"

func TestMain(m *testing.M) {
	dir := os.Getenv(speakerEnv)
	if dir == "" {
		// Cells wait for timers most of the time.
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	err := child.Run(ctx, child.Config{RunDir: dir, Log: log, New: func(restarted bool) reconcile.SpeakCloser {
		return guarded.New(gobgp.New(gobgp.Options{Log: log, Restarted: restarted}), log)
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// patience is how long a test waits for what must come.
const patience = 40 * time.Second

// eventually waits until f returns "", which is what is missing.
func eventually(t *testing.T, what string, f func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.Tick(100 * time.Millisecond); ; <-tick {
		missing := f()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, missing)
		}
	}
}

// lab is a bridge with machines at it.
type lab struct {
	*testing.T
	bridge *kerneltest.Namespace
	last   byte
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, bridge: kerneltest.New(t)}
	l.bridge.Run("ip", "link", "add", "lan", "type", "bridge")
	l.bridge.Up("lan")
	return l
}

// machine is a namespace at the bridge.
type machine struct {
	l        *lab
	ns       *kerneltest.Namespace
	name     string
	addr     netip.Addr
	addr6    netip.Addr
	output   *bytes.Buffer
	outputMu sync.Mutex
}

// machine adds one, with the next address of both families.
func (l *lab) machine(name string) *machine {
	l.Helper()
	l.last++
	m := &machine{
		l: l, name: name, ns: kerneltest.New(l.T), output: &bytes.Buffer{},
		addr:  netip.AddrFrom4([4]byte{192, 0, 2, l.last}),
		addr6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", l.last)),
	}
	kerneltest.Veth(m.ns, "eth0", l.bridge, name)
	m.ns.Run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
	m.ns.Run("ip", "addr", "add", m.addr.String()+"/24", "dev", "eth0")
	m.ns.Run("ip", "addr", "add", m.addr6.String()+"/64", "dev", "eth0", "nodad")
	m.ns.Up("eth0")
	l.bridge.Up(name)
	m.plug()
	l.Cleanup(func() {
		if l.Failed() {
			l.Logf("%s: %s", name, m.said())
		}
	})
	return m
}

func (m *machine) plug() { m.l.bridge.Run("ip", "link", "set", m.name, "master", "lan") }

// unplug loses all packets of the machine from now on. Its link stays up.
func (m *machine) unplug() { m.l.bridge.Run("ip", "link", "set", m.name, "nomaster") }

// Write takes what daemons say.
func (m *machine) Write(b []byte) (int, error) {
	m.outputMu.Lock()
	defer m.outputMu.Unlock()
	return m.output.Write(b)
}

func (m *machine) said() string {
	m.outputMu.Lock()
	defer m.outputMu.Unlock()
	return m.output.String()
}

// start runs a program in the machine until end, or the end of the test.
func (m *machine) start(cmd *exec.Cmd) (end func(os.Signal)) {
	m.l.Helper()
	cmd.Stdout, cmd.Stderr = m, m
	m.ns.Do(func() {
		if err := cmd.Start(); err != nil {
			m.l.Fatalf("%s: start %s: %v", m.name, cmd.Path, err)
		}
	})
	var once sync.Once
	end = func(s os.Signal) {
		once.Do(func() {
			_ = cmd.Process.Signal(s)
			_ = cmd.Wait() // killed
		})
	}
	m.l.Cleanup(func() { end(os.Kill) })
	return end
}

// dir is a directory that users of daemons can enter.
func (l *lab) dir() string {
	l.Helper()
	dir, err := os.MkdirTemp("", "korat-interop-")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (l *lab) write(dir, name, text string) string {
	l.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
	return path
}

// node is a machine with Korat's speaker.
type node struct {
	*machine
	*child.Client
	dir string
	end func(os.Signal)

	mu        sync.Mutex // guards the rest
	paths     map[netip.Prefix]string
	withdrawn []netip.Prefix
}

func (l *lab) node(name string) *node {
	l.Helper()
	n := &node{machine: l.machine(name), dir: l.dir(), paths: map[netip.Prefix]string{}}
	n.Client = child.NewClient(n.dir, func() {})
	n.run()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Learned(ctx, n.hear)
	}()
	l.Cleanup(func() { cancel(); <-done })
	return n
}

// run starts the speaker, which is told what the one before was told.
func (n *node) run() {
	n.l.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), speakerEnv+"="+n.dir)
	n.end = n.machine.start(cmd)
	eventually(n.l.T, n.name+" answers", func() string {
		if _, err := n.Sessions(n.l.Context()); err != nil {
			return err.Error()
		}
		return ""
	})
}

func (n *node) hear(changed []bgp.Learned, _ bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range changed {
		if len(c.NextHops) == 0 {
			delete(n.paths, c.Prefix)
			n.withdrawn = append(n.withdrawn, c.Prefix)
			continue
		}
		n.paths[c.Prefix] = words(c.NextHops)
	}
}

func words[T fmt.Stringer](l []T) string {
	var out []string
	for _, a := range l {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// learned returns the next hops of a prefix, and forgets what was withdrawn.
func (n *node) learned(p string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paths[netip.MustParsePrefix(p)]
}

// learns waits until n has the next hops for a prefix.
func (n *node) learns(p string, want ...netip.Addr) {
	n.l.Helper()
	eventually(n.l.T, n.name+" learns "+p, func() string {
		if got := n.learned(p); got != words(want) {
			return fmt.Sprintf("next hops %q, want %q; %s", got, words(want), n.sessions())
		}
		return ""
	})
}

func (n *node) sessions() string {
	all, err := n.Sessions(n.l.Context())
	return fmt.Sprintf("sessions %+v %v", all, err)
}

func (n *node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.withdrawn = nil
}

// lost returns what was withdrawn since forget.
func (n *node) lost() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.withdrawn)
}

// session waits until the session with an address is up, and returns it.
func (n *node) session(with netip.Addr, ok func(bgp.Session) bool) (got bgp.Session) {
	n.l.Helper()
	eventually(n.l.T, fmt.Sprintf("%s: session with %s", n.name, with), func() string {
		all, err := n.Sessions(n.l.Context())
		for _, s := range all {
			if s.Addr == with && ok(s) {
				got = s
				return ""
			}
		}
		return fmt.Sprintf("%+v %v", all, err)
	})
	return got
}

func up(s bgp.Session) bool { return s.Established }

// speak configures n and announces blocks.
func (n *node) speak(c bgp.Config, paths ...bgp.Path) {
	n.l.Helper()
	c.RouterID, c.ListenPort = n.addr, 179
	if c.RestartTime == 0 {
		c.RestartTime = time.Minute
	}
	slices.SortFunc(c.Peers, func(a, b bgp.Peer) int { return a.Addr.Compare(b.Addr) })
	if err := errors.Join(n.Announce(n.l.Context(), paths), n.Configure(n.l.Context(), c)); err != nil {
		n.l.Fatalf("%s: %v", n.name, err)
	}
}
