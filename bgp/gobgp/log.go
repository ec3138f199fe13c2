package gobgp

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// logHandler lets GoBGP log into ours, one level lower at its Info: what is a
// life event of the node Sessions reports. It also reads along: some reasons
// why a session is down are only in GoBGP's log lines.
//
// GoBGP's Debug lines are one per message on the wire and go no further; those of a
// session that is up are not even made.
type logHandler struct {
	next     slog.Handler
	limit    *logLimit
	sessions *sessions
	off      *atomic.Bool
	peer     netip.Addr // set for the logger of one neighbour
}

func newLogHandler(log *slog.Logger, s *sessions, off *atomic.Bool) *logHandler {
	return &logHandler{next: log.With("component", "gobgp").Handler(), limit: &logLimit{m: map[netip.Addr]*logWindow{}}, sessions: s, off: off}
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	if level < slog.LevelInfo {
		return h.peer.IsValid() && !h.sessions.up(h.peer)
	}
	return h.peer.IsValid() || h.next.Enabled(ctx, lowered(level))
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.off.Load() {
		return nil
	}
	if h.peer.IsValid() {
		h.sessions.failed(h.peer, failureIn(r), r.Time)
	}
	level := lowered(r.Level)
	if r.Message == secondConnection {
		level = slog.LevelDebug
	}
	if r.Level < slog.LevelInfo || !h.next.Enabled(ctx, level) {
		return nil
	}
	leftOut, ok := h.limit.allow(h.peer, r.Time)
	if !ok {
		return nil
	}
	out := slog.NewRecord(r.Time, level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "Topic" {
			out.AddAttrs(renamed(a))
		}
		return true
	})
	if leftOut > 0 {
		out.AddAttrs(slog.Int("lines_left_out", leftOut))
	}
	return h.next.Handle(ctx, out)
}

const (
	logLines  = 20 // of one neighbour
	logPeriod = 10 * time.Second
)

// logLimit keeps a neighbour from filling the log: GoBGP writes a line for each
// message that is malformed.
type logLimit struct {
	mu sync.Mutex // guards m
	m  map[netip.Addr]*logWindow
}

type logWindow struct {
	begun          time.Time
	lines, leftOut int
}

// allow reports whether a line about peer may be written, and how many were left
// out since the last one.
func (l *logLimit) allow(peer netip.Addr, at time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.m[peer]
	if w == nil {
		w = &logWindow{begun: at}
		l.m[peer] = w
	}
	if at.Sub(w.begun) >= logPeriod {
		w.begun, w.lines = at, 0
	}
	if w.lines >= logLines {
		w.leftOut++
		return 0, false
	}
	w.lines++
	leftOut, w.leftOut = w.leftOut, 0
	return leftOut, true
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	var kept []slog.Attr
	for _, a := range attrs {
		if a.Key == "Topic" {
			continue
		}
		if addr, err := netip.ParseAddr(a.Value.String()); err == nil && a.Key == "Key" {
			c.peer = addr.Unmap()
		}
		kept = append(kept, renamed(a))
	}
	c.next = h.next.WithAttrs(kept)
	return &c
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	return &c
}

// secondConnection is what happens whenever both sides call each other.
const secondConnection = "Closed an accepted connection"

func lowered(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return min(level, slog.LevelWarn) // what a neighbour does is retried
}

func renamed(a slog.Attr) slog.Attr {
	if a.Key == "Key" {
		return slog.Attr{Key: "address", Value: a.Value}
	}
	return slog.Attr{Key: strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(a.Key)), Value: a.Value}
}

// failureIn returns why a session is down, if the log line of its neighbour says
// so.
func failureIn(r slog.Record) string {
	switch r.Message {
	case "failed to connect":
		return dialWords(attr(r, "Error").String())
	case "sent notification", "received notification":
		code, subcode := attr(r, "Code"), attr(r, "Subcode")
		if code.Kind() != slog.KindInt64 || subcode.Kind() != slog.KindInt64 {
			return ""
		}
		return notificationWords(r.Message == "sent notification", uint8(code.Int64()), uint8(subcode.Int64()))
	case "hold timer expired":
		return "hold timer expired"
	default:
		return ""
	}
}

func attr(r slog.Record, key string) slog.Value {
	var v slog.Value
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == key {
			v = a.Value
		}
		return a.Key != key
	})
	return v
}
