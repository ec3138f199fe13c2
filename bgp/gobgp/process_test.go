package gobgp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
)

// speakerEnv makes the test binary a speaker that obeys its standard input: a
// process of its own can be in another namespace, and be killed.
const speakerEnv = "KORAT_TEST_SPEAKER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(speakerEnv); mode != "" {
		if err := speak(mode == "restarted", os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if spec := os.Getenv(fanEnv); spec != "" {
		var f fan
		if err := json.Unmarshal([]byte(spec), &f); err != nil {
			panic(err)
		}
		if err := f.run(os.Stdout); err != nil {
			os.Exit(1) // the error was told
		}
		return
	}
	os.Exit(m.Run())
}

// request is what a speaker process is told; exactly one of its other fields is set.
type request struct {
	Configure          *bgp.Config
	Passwords          map[string]string // with Configure, by Peer.Name: they do not print
	Announce, Withdraw []bgp.Path
	Routes             *bgp.Routes
	Sessions           bool
	Profile            string // begins to profile the processor to FILE.cpu, or ends it and profiles the heap to FILE.heap
	Kernel             bool   // what is learned goes into the kernel from now on, instead of being told
	Close              bool
}

// reply is what it says: an answer, or what it learned.
type reply struct {
	Err      string
	Sessions []bgp.Session
	Routes   []bgp.Route
	Learned  []bgp.Learned
	Synced   bool
	News     bool // not an answer
}

func speak(restarted bool, in io.Reader, out io.Writer) error {
	s := gobgp.New(gobgp.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Restarted: restarted})
	var mu sync.Mutex // of enc
	enc := json.NewEncoder(out)
	say := func(r reply) error {
		mu.Lock()
		defer mu.Unlock()
		return enc.Encode(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var kernel atomic.Pointer[route.Reconciler]
	go s.Learned(ctx, func(l []bgp.Learned, synced bool) {
		if k := kernel.Load(); k != nil {
			intoKernel(ctx, k, l)
			return
		}
		if err := say(reply{Learned: l, Synced: synced, News: true}); err != nil {
			cancel()
		}
	})
	var profiling *os.File
	for dec := json.NewDecoder(in); ; {
		var r request
		if err := dec.Decode(&r); err != nil {
			return err
		}
		var answer reply
		var err error
		switch {
		case r.Configure != nil:
			for i, p := range r.Configure.Peers {
				r.Configure.Peers[i].Password = bgp.Password(r.Passwords[p.Name])
			}
			err = s.Configure(ctx, *r.Configure)
		case r.Announce != nil:
			err = s.Announce(ctx, r.Announce)
		case r.Withdraw != nil:
			err = s.Withdraw(ctx, r.Withdraw)
		case r.Routes != nil:
			answer.Routes, err = s.Routes(ctx, *r.Routes)
		case r.Sessions:
			answer.Sessions, err = s.Sessions(ctx)
		case r.Kernel:
			var k *route.Reconciler
			k, err = route.New()
			kernel.Store(k)
		case r.Profile != "":
			profiling, err = profile(r.Profile, profiling)
		case r.Close:
			return s.Close()
		}
		if err != nil {
			answer.Err = err.Error()
		}
		if err := say(answer); err != nil {
			return err
		}
	}
}

// profile begins a profile, or ends the running one.
func profile(file string, running *os.File) (*os.File, error) {
	if running == nil {
		f, err := os.Create(file + ".cpu")
		if err != nil {
			return nil, err
		}
		return f, pprof.StartCPUProfile(f)
	}
	pprof.StopCPUProfile()
	f, err := os.Create(file + ".heap")
	if err != nil {
		return nil, err
	}
	runtime.GC()
	return nil, errors.Join(running.Close(), pprof.WriteHeapProfile(f), f.Close())
}

// process is a speaker in a process of its own.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	enc     *json.Encoder
	answers chan reply
	done    chan struct{}

	mu        sync.Mutex // guards the rest
	paths     map[string]string
	withdrawn []string
	synced    bool
}

func startSpeaker(t testing.TB, ns *kerneltest.Namespace, restarted bool) *process {
	t.Helper()
	p := &process{t: t, answers: make(chan reply, 1), done: make(chan struct{}), paths: map[string]string{}}
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), speakerEnv+"=fresh")
	if restarted {
		p.cmd.Env = append(os.Environ(), speakerEnv+"=restarted")
	}
	p.cmd.Stderr = &logWriter{t: t, name: "speaker"}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.enc = json.NewEncoder(in)
	ns.Do(func() {
		if err := p.cmd.Start(); err != nil {
			t.Fatalf("start speaker: %v", err)
		}
	})
	t.Cleanup(p.kill)
	go p.read(out)
	return p
}

func (p *process) read(out io.Reader) {
	defer close(p.done)
	for dec := json.NewDecoder(bufio.NewReader(out)); ; {
		var r reply
		if err := dec.Decode(&r); err != nil {
			return
		}
		if !r.News {
			p.answers <- r
			continue
		}
		p.mu.Lock()
		p.synced = r.Synced
		for _, l := range r.Learned {
			if len(l.NextHops) == 0 {
				delete(p.paths, l.Prefix.String())
				p.withdrawn = append(p.withdrawn, l.Prefix.String())
			} else {
				p.paths[l.Prefix.String()] = words(l.NextHops)
			}
		}
		p.mu.Unlock()
	}
}

func (p *process) ask(r request) reply {
	p.t.Helper()
	if err := p.enc.Encode(r); err != nil {
		p.t.Fatalf("ask speaker: %v", err)
	}
	select {
	case a := <-p.answers:
		if a.Err != "" {
			p.t.Fatalf("speaker: %s", a.Err)
		}
		return a
	case <-p.done:
		p.t.Fatal("speaker ended")
	case <-time.After(45 * time.Second):
		p.t.Fatal("speaker does not answer")
	}
	return reply{}
}

// kill ends the process as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
	p.cmd.Wait()
}

// close ends it in order.
func (p *process) close() {
	p.t.Helper()
	if err := p.enc.Encode(request{Close: true}); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("speaker: %v", err)
	}
}

func (p *process) session(peer string) bgp.Session {
	p.t.Helper()
	for _, s := range p.ask(request{Sessions: true}).Sessions {
		if s.Peer == peer {
			return s
		}
	}
	return bgp.Session{}
}

func (p *process) learned() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]string{}
	for k, v := range p.paths {
		out[k] = v
	}
	return out
}

func words(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

// eventually waits until what f returns has the printed form of want.
func eventually(t testing.TB, what string, want any, f func() any) {
	t.Helper()
	deadline := time.Now().Add(45 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		got := f()
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
}

// logWriter gives what a process says to the test's log.
type logWriter struct {
	t    testing.TB
	name string
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, strings.TrimSpace(string(b)))
	return len(b), nil
}
