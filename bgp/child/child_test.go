package child_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/bgp/speakertest"
)

const patience = 30 * time.Second

// TestMain makes the test binary a speaker when a Keeper starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "speaker" {
		if err := speak(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func speak(runDir string) error {
	log := slog.New(slog.DiscardHandler)
	if err := os.WriteFile(filepath.Join(runDir, "speaker", "pid"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	return child.Run(context.Background(), child.Config{
		RunDir: runDir, Version: version, Log: log,
		New: func(restarted bool) reconcile.SpeakCloser {
			return gobgp.New(gobgp.Options{Log: log, Restarted: restarted})
		},
	})
}

const version = "v1"

// TestAClientFulfilsTheContract: to the agent the process is a speaker as any other.
func TestAClientFulfilsTheContract(t *testing.T) {
	worlds := map[string]*speakertest.World{} // by subtest: contracts do not share networks
	var mu sync.Mutex
	over := func(t *testing.T, _ bool) reconcile.SpeakCloser {
		mu.Lock()
		defer mu.Unlock()
		if worlds[t.Name()] == nil {
			worlds[t.Name()] = new(speakertest.World)
		}
		return serve(t, t.TempDir(), worlds[t.Name()].Speaker())
	}
	speakertest.Contract(t, over)
	for _, item := range []int{66, 67, 68} {
		speakertest.Item(t, item, over)
	}
}

// served is a client together with the server that it talks to.
type served struct {
	*child.Client
	end func() error
}

// Close ends the server.
func (s served) Close() error { return s.end() }

func serve(t *testing.T, runDir string, speaker reconcile.SpeakCloser) served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- child.Run(ctx, child.Config{
			RunDir: runDir, Version: version, Log: slog.New(slog.DiscardHandler),
			New: func(bool) reconcile.SpeakCloser { return speaker },
		})
	}()
	s := served{child.NewClient(runDir, func() {}), func() error {
		cancel()
		return <-done
	}}
	wait(t, "the server answers", func() bool {
		_, err := s.Sessions(t.Context())
		return err == nil
	})
	return s
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// node is an agent's side of the speaker: a keeper and who listens.
type node struct {
	t      *testing.T
	dir    string
	client *child.Client
	stop   context.CancelFunc

	mu        sync.Mutex // guards the rest
	paths     map[netip.Prefix]bgp.Learned
	withdrawn int
	synced    bool
	log       bytes.Buffer
}

// agent begins an agent in dir. Its end leaves the speaker running; the test's
// end does not.
func agent(t *testing.T, dir, version string) *node {
	t.Helper()
	n := &node{t: t, dir: dir, paths: map[netip.Prefix]bgp.Learned{}}
	n.client = child.NewClient(dir, func() {})
	ctx, cancel := context.WithCancel(context.Background())
	k := &child.Keeper{
		RunDir: dir, Version: version, Command: []string{"korat", "speaker", dir}, Client: n.client,
		Log: slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	wg.Go(func() { _ = n.client.Learned(ctx, n.hear) })
	n.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(func() {
		n.stop()
		_ = n.client.Stop(context.Background()) // another agent's may be gone
		wait(t, "the speaker ends", func() bool { return child.NewClient(dir, nil).Stop(context.Background()) != nil })
	})
	return n
}

// Write takes in the log.
func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(p)
}

func (n *node) hear(changed []bgp.Learned, synced bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.synced = n.synced || synced
	for _, l := range changed {
		if len(l.NextHops) == 0 {
			n.withdrawn++
			delete(n.paths, l.Prefix)
		} else {
			n.paths[l.Prefix] = l
		}
	}
}

func (n *node) pid() int {
	text, err := os.ReadFile(filepath.Join(n.dir, "speaker", "pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(text))
	return pid
}

func (n *node) established() bool {
	sessions, err := n.client.Sessions(n.t.Context())
	return err == nil && len(sessions) == 1 && sessions[0].Established
}

func (n *node) knows(prefixes ...netip.Prefix) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range prefixes {
		if _, ok := n.paths[p]; !ok {
			return false
		}
	}
	return n.synced && len(n.paths) == len(prefixes)
}

var (
	here  = netip.MustParseAddr("127.9.0.1")
	there = netip.MustParseAddr("127.9.0.2")
	ours  = bgp.Path{Prefix: netip.MustParsePrefix("10.244.9.0/26"), Kind: bgp.Blocks}
	their = bgp.Path{Prefix: netip.MustParsePrefix("10.244.9.64/26"), Kind: bgp.Blocks}
)

// neighbour is a router that tells their and is told ours.
func neighbour(t *testing.T, password bgp.Password) *node {
	t.Helper()
	n := &node{t: t, paths: map[netip.Prefix]bgp.Learned{}}
	s := gobgp.New(gobgp.Options{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Learned(ctx, n.hear) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, s.Announce(ctx, []bgp.Path{their}))
	must(t, s.Configure(ctx, config(there, here, password)))
	return n
}

const port, otherPort = 17909, 17910

func config(own, peer netip.Addr, password bgp.Password) bgp.Config {
	listen, call := uint16(port), uint16(otherPort)
	if own == there {
		listen, call = call, listen
	}
	return bgp.Config{
		ASN: 64512, RouterID: own, ListenPort: listen, RestartTime: time.Minute,
		Peers: []bgp.Peer{{
			Name: "bgppeer/p", Addr: peer, Port: call, ASN: 64512, LocalAddr: own, Password: password,
			Advertise: bgp.Blocks, Passive: own == there,
		}},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tell says everything as the reconciler of an agent does.
func (n *node) tell(c bgp.Config, paths ...bgp.Path) {
	n.t.Helper()
	must(n.t, n.client.Announce(n.t.Context(), paths))
	must(n.t, n.client.Configure(n.t.Context(), c))
}

// shared is a run directory that the speaker's user may enter, as /run is.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "korat-speaker-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func TestSessionsSurviveTheAgent(t *testing.T) {
	router := neighbour(t, "")
	first := agent(t, shared(t), version)
	wait(t, "a speaker answers", func() bool { _, err := first.client.Sessions(t.Context()); return err == nil })
	first.tell(config(here, there, ""), ours)
	wait(t, "the node knows the router's path", func() bool { return first.knows(their.Prefix) })
	wait(t, "the router knows the node's path", func() bool { return router.knows(ours.Prefix) })
	before, err := first.client.Sessions(t.Context())
	must(t, err)
	first.stop()

	second := agent(t, first.dir, version)
	wait(t, "the next agent knows the router's path", func() bool { return second.knows(their.Prefix) })
	after, err := second.client.Sessions(t.Context())
	must(t, err)
	if !after[0].Since.Equal(before[0].Since) {
		t.Errorf("the session is up since %s, want since %s: it was reset", after[0].Since, before[0].Since)
	}
	told, err := second.client.Originated(t.Context())
	must(t, err)
	if len(told) != 1 || told[0] != ours {
		t.Errorf("originated %v, want what the first agent said: %v", told, ours)
	}
}

func TestAKilledSpeakerGoesOnWithoutTheAgentsWord(t *testing.T) {
	router := neighbour(t, "")
	n := agent(t, shared(t), version)
	wait(t, "a speaker answers", func() bool { _, err := n.client.Sessions(t.Context()); return err == nil })
	n.tell(config(here, there, ""), ours)
	wait(t, "both know", func() bool { return n.knows(their.Prefix) && router.knows(ours.Prefix) })
	wait(t, "the state is written", func() bool {
		text, _ := os.ReadFile(filepath.Join(n.dir, "speaker", "state"))
		return bytes.Contains(text, []byte(there.String())) && bytes.Contains(text, []byte(ours.Prefix.String()))
	})
	killed := n.pid()
	must(t, syscall.Kill(killed, syscall.SIGKILL))
	wait(t, "another speaker has the session", func() bool { return n.pid() != killed && n.established() })
	wait(t, "both know", func() bool { return n.knows(their.Prefix) && router.knows(ours.Prefix) })
	for who, nd := range map[string]*node{"the agent": n, "the router": router} {
		nd.mu.Lock()
		if nd.withdrawn > 0 {
			t.Errorf("%s was told %d withdrawals, want none: nothing was lost", who, nd.withdrawn)
		}
		nd.mu.Unlock()
	}
}

func TestAnAgentReplacesASpeakerOfAnotherVersion(t *testing.T) {
	n := agent(t, shared(t), version)
	wait(t, "a speaker answers", func() bool { _, err := n.client.Sessions(t.Context()); return err == nil })
	n.stop()
	old := n.pid()
	next := agent(t, n.dir, "v2")
	wait(t, "another process answers", func() bool {
		_, err := next.client.Sessions(t.Context())
		return err == nil && next.pid() != old
	})
}

func TestASpeakerEndsWithItsSocket(t *testing.T) {
	dir := t.TempDir()
	ended := make(chan error, 1)
	go func() {
		ended <- child.Run(t.Context(), child.Config{
			RunDir: dir, Version: version, Log: slog.New(slog.DiscardHandler),
			New: func(bool) reconcile.SpeakCloser { return new(speakertest.World).Speaker() },
		})
	}()
	wait(t, "it listens", func() bool { _, err := os.Stat(child.Socket(dir)); return err == nil })
	must(t, os.RemoveAll(filepath.Join(dir, "speaker")))
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("the speaker still runs")
	}
}

// slow is a speaker that takes its time to end, as one does that says goodbye.
type slow struct {
	reconcile.SpeakCloser
	ending, end chan struct{}
}

func (s slow) Close() error {
	close(s.ending)
	<-s.end
	return s.SpeakCloser.Close()
}

// TestTheNextSpeakerWaitsForTheOneBefore: it stops answering before it has ended.
func TestTheNextSpeakerWaitsForTheOneBefore(t *testing.T) {
	dir, world := t.TempDir(), new(speakertest.World)
	first := slow{world.Speaker(), make(chan struct{}), make(chan struct{})}
	before := serve(t, dir, first)
	ended := make(chan error, 1)
	go func() { ended <- before.Close() }()
	<-first.ending
	time.AfterFunc(100*time.Millisecond, func() { close(first.end) })
	next := serve(t, dir, world.Speaker())
	must(t, <-ended)
	must(t, next.Close())
}

// TestTheNextReaderTakesOver: an agent that ends may still listen when the next one
// begins, and takes nothing away from it.
func TestTheNextReaderTakesOver(t *testing.T) {
	world := new(speakertest.World)
	router := world.Speaker()
	must(t, router.Configure(t.Context(), config(there, here, "")))
	s := serve(t, t.TempDir(), world.Speaker())
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.Configure(t.Context(), config(here, there, "")))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var readers [2]*node
	for i := range readers {
		readers[i] = &node{t: t, paths: map[netip.Prefix]bgp.Learned{}}
		if i == 1 {
			stop() // the first one, which may find the second one there already
			ctx = t.Context()
		}
		go func() { _ = s.Learned(ctx, readers[i].hear) }()
		wait(t, "the reader is told all", func() bool { return readers[i].knows() })
	}
	for i := range 20 {
		p := bgp.Path{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 26), Kind: bgp.Blocks}
		must(t, router.Announce(t.Context(), []bgp.Path{p}))
	}
	wait(t, "the second reader hears of everything", func() bool {
		readers[1].mu.Lock()
		defer readers[1].mu.Unlock()
		return len(readers[1].paths) == 20
	})
}

func TestASpeakerHasNoPrivilegeButItsPort(t *testing.T) {
	n := agent(t, shared(t), version)
	wait(t, "a speaker answers", func() bool { _, err := n.client.Sessions(t.Context()); return err == nil })
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid()))
	must(t, err)
	want := map[string]string{
		"Uid:": "65532\t65532\t65532\t65532", "Gid:": "65532\t65532\t65532\t65532",
		"CapEff:": fmt.Sprintf("%016x", 1<<unix.CAP_NET_BIND_SERVICE),
	}
	for line := range strings.Lines(string(text)) {
		for key, value := range want {
			if have, ok := strings.CutPrefix(line, key); ok && strings.TrimSpace(have) != value {
				t.Errorf("%s is %q, want %q", key, strings.TrimSpace(have), value)
			}
		}
	}
}

// TestPasswordsStayInside: they reach the neighbour, and no log and no other user.
func TestPasswordsStayInside(t *testing.T) {
	const secret = "correct-horse"
	router := neighbour(t, secret)
	n := agent(t, shared(t), version)
	wait(t, "a speaker answers", func() bool { _, err := n.client.Sessions(t.Context()); return err == nil })
	n.tell(config(here, there, secret), ours)
	wait(t, "the router knows the node's path", func() bool { return router.knows(ours.Prefix) })
	info, err := os.Stat(filepath.Join(n.dir, "speaker"))
	must(t, err)
	if info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the directory's mode is %v: others may enter", info.Mode().Perm())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.Contains(n.log.String(), secret) {
		t.Error("the password is in the log")
	}
}

var _ reconcile.Lasting = (*child.Client)(nil)
