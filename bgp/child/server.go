package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/felix/detached"
)

const (
	// saveEvery bounds how often a changed state is written.
	saveEvery = time.Second
	// largest is the largest request: 100,000 paths take a tenth of it.
	largest = 128 << 20
	// paths are told in as many requests as this makes of them.
	pathsPerCall = 10_000
)

// The calls, and what a speaker says about itself in every answer.
const (
	callConfigure = "/configure"
	callAnnounce  = "/announce"
	callWithdraw  = "/withdraw"
	callPaths     = "/originated"
	callLearned   = "/learned"
	callSessions  = "/sessions"
	callRoutes    = "/routes"
	callBreak     = "/break"
	callLive      = "/live"
	callStop      = "/stop"
	headerVersion = "Korat-Version"
)

// Config is what a speaker's process is told by flags.
type Config struct {
	RunDir  string // the agent's
	Version string
	Log     *slog.Logger
	// New makes the speaker. restarted: the kernel still forwards by the routes of
	// an earlier one.
	New func(restarted bool) reconcile.SpeakCloser
}

// Server is a speaker's process.
type Server struct {
	cfg     Config
	dir     string
	speaker reconcile.SpeakCloser
	stop    context.CancelFunc
	dirty   chan struct{} // of capacity 1: the state is to be written

	// telling is held while the speaker is told something and it is noted here: an
	// agent that ends and the next one may both do so.
	telling sync.Mutex

	mu     sync.Mutex // guards the rest
	config *bgp.Config
	paths  map[bgp.Path]struct{}
	reader *reader // of what is learned; nil: none
}

// Run serves the speaker until ctx ends or somebody takes its socket away.
func Run(ctx context.Context, c Config) (err error) {
	dir := dirOf(c.RunDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory of the speaker: %w", err)
	}
	unlock, err := detached.Lock(ctx, filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("speaker: %w", err)
	}
	defer unlock()
	told, restarted, err := loadState(dir)
	if err != nil {
		c.Log.Error("waiting for the agent to say everything", "error", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &Server{
		cfg: c, dir: dir, stop: stop, dirty: make(chan struct{}, 1),
		speaker: c.New(restarted), paths: map[bgp.Path]struct{}{},
	}
	defer func() { err = errors.Join(err, s.speaker.Close()) }()
	if err := s.resume(ctx, told); err != nil {
		c.Log.Error("going on as before", "error", err)
	}
	return s.serve(ctx)
}

// resume tells the speaker what the one before it was told, paths first: the
// neighbours drop at End-of-RIB what they were not told again.
func (s *Server) resume(ctx context.Context, told state) error {
	if len(told.Paths) > 0 {
		for _, p := range told.Paths {
			s.paths[p] = struct{}{}
		}
		if err := s.speaker.Announce(ctx, told.Paths); err != nil {
			return err
		}
	}
	if told.Config == nil {
		return nil
	}
	c := told.Config.open()
	s.config = &c
	return s.speaker.Configure(ctx, c)
}

func (s *Server) serve(ctx context.Context) error {
	name := filepath.Join(s.dir, socketName)
	_ = os.Remove(name) // of one that was killed: we hold the lock
	l, err := net.Listen("unix", name)
	if err != nil {
		return fmt.Errorf("socket of the speaker: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it may be another's by then
	defer l.Close()
	srv := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	context.AfterFunc(ctx, func() { srv.Close() })
	var wg sync.WaitGroup
	wg.Go(func() { s.keep(ctx) })
	wg.Go(func() {
		if detached.Gone(ctx, name) {
			s.cfg.Log.Info("the socket was taken away, so this speaker ends", "socket", name)
			s.stop()
		}
	})
	err = srv.Serve(trusted{l.(*net.UnixListener)})
	s.stop()
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("socket of the speaker: %w", err)
}

// keep writes the state after changes, the last time when ctx ends.
func (s *Server) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			s.save()
			return
		case <-s.dirty:
			s.save()
			select { // no more than one write in saveEvery
			case <-time.After(saveEvery):
			case <-ctx.Done():
			}
		}
	}
}

func (s *Server) save() {
	s.mu.Lock()
	told := state{Paths: slices.Collect(maps.Keys(s.paths))}
	if s.config != nil {
		told.Config = seal(*s.config)
	}
	s.mu.Unlock()
	if err := saveState(s.dir, told); err != nil && !errors.Is(err, os.ErrNotExist) { // the directory was taken away
		s.cfg.Log.Error("a speaker that restarts would have to wait for the agent", "error", err)
	}
}

func (s *Server) changed(do func()) {
	s.mu.Lock()
	do()
	s.mu.Unlock()
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(callConfigure, call(func(ctx context.Context, c *sealed) (struct{}, error) {
		s.telling.Lock()
		defer s.telling.Unlock()
		config := c.open()
		s.changed(func() { s.config = &config })
		return struct{}{}, s.speaker.Configure(ctx, config)
	}))
	mux.HandleFunc(callAnnounce, call(func(ctx context.Context, paths []bgp.Path) (struct{}, error) {
		s.telling.Lock()
		defer s.telling.Unlock()
		if err := s.speaker.Announce(ctx, paths); err != nil {
			return struct{}{}, err // maybe some were: announcing again is no change
		}
		s.changed(func() {
			for _, p := range paths {
				s.paths[p] = struct{}{}
			}
		})
		return struct{}{}, nil
	}))
	mux.HandleFunc(callWithdraw, call(func(ctx context.Context, paths []bgp.Path) (struct{}, error) {
		s.telling.Lock()
		defer s.telling.Unlock()
		if err := s.speaker.Withdraw(ctx, paths); err != nil {
			return struct{}{}, err
		}
		s.changed(func() {
			for _, p := range paths {
				delete(s.paths, p)
			}
		})
		return struct{}{}, nil
	}))
	mux.HandleFunc(callPaths, call(func(context.Context, struct{}) ([]bgp.Path, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Collect(maps.Keys(s.paths)), nil
	}))
	mux.HandleFunc(callSessions, call(func(ctx context.Context, _ struct{}) ([]bgp.Session, error) { return s.speaker.Sessions(ctx) }))
	mux.HandleFunc(callRoutes, call(s.speaker.Routes))
	mux.HandleFunc(callBreak, call(func(ctx context.Context, b breaking) (struct{}, error) {
		return struct{}{}, s.speaker.Break(ctx, b.Peer, b.Why)
	}))
	mux.HandleFunc(callStop, call(func(context.Context, struct{}) (struct{}, error) {
		s.stop()
		return struct{}{}, nil
	}))
	mux.HandleFunc(callLive, func(w http.ResponseWriter, r *http.Request) { // ends when either process does
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc(callLearned, s.learned)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerVersion, s.cfg.Version)
		mux.ServeHTTP(w, r)
	})
}

// breaking is a request to break a session.
type breaking struct {
	Peer netip.Addr
	Why  string
}

// call makes a handler of a function from JSON to JSON. An error is the body of
// an answer that is not 200.
func call[In, Out any](do func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largest)).Decode(&in)
		if err != nil && !errors.Is(err, io.EOF) {
			http.Error(w, "request does not parse: "+err.Error(), http.StatusBadRequest)
			return
		}
		// What was begun is done whole: the caller may be an agent that ends now.
		out, err := do(context.WithoutCancel(r.Context()), in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // who asked may have gone
	}
}

// trusted accepts connections of root and of the speaker's own user alone,
// whatever happens to the mode of the directory.
type trusted struct{ *net.UnixListener }

// Accept returns the next trusted connection.
func (t trusted) Accept() (net.Conn, error) {
	for {
		c, err := t.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if who, err := peerUID(c); err == nil && (who == 0 || who == os.Getuid()) {
			return c, nil
		}
		c.Close()
	}
}

func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, inner); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
