package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/flow/wire"
	"github.com/koratnet/korat/felix/kernel/nflog"
)

// maxDrops bounds memory: 4,096 drops take some 3 MB.
const maxDrops = 4096

// The pace. At most perWindow packets are looked at in a window, 5,000 a second,
// which costs some hundredths of a core; what comes beyond waits in the small
// buffer of the socket, or is missed.
const (
	window    = 100 * time.Millisecond
	perWindow = 500
	retry     = 10 * time.Second // when the group cannot be read
)

// Config is what a Recorder needs; every field is required.
type Config struct {
	Node     string
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Recorder records drops. Its methods may be called by any goroutine; Run once.
type Recorder struct {
	node    string
	log     *slog.Logger
	metrics metrics
	changed chan struct{} // holds one mark: enabled has changed

	mu      sync.Mutex // guards the rest, for moments
	names   index
	ring    ring
	since   time.Time
	looked  uint64
	missed  uint64
	enabled bool
	problem error
	socket  *nflog.Socket // nil: none is open
}

// New returns a Recorder that knows nothing yet.
func New(c Config) *Recorder {
	return &Recorder{
		node: c.Node, log: c.Log, metrics: newMetrics(c.Registry), changed: make(chan struct{}, 1),
		names: newIndex(), ring: newRing(maxDrops), since: time.Now(), enabled: desired.DefaultSettings().DropRecords,
	}
}

// Want takes in a change of what is desired: the names of policies and pods, and
// whether to record.
func (r *Recorder) Want(d desired.Delta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names.want(d)
	if d.Settings == nil || d.Settings.DropRecords == r.enabled {
		return
	}
	r.enabled = d.Settings.DropRecords
	if r.socket != nil {
		r.socket.Close()
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Run records until ctx ends, in the network namespace of the calling thread. A
// group that cannot be read is tried again from time to time; nothing depends on it.
func (r *Recorder) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := make(<-chan time.Time)
		if r.isEnabled() {
			err := r.record(ctx)
			if r.settle(err) {
				wait = time.After(retry)
			} else {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-r.changed:
		case <-wait:
		}
	}
	return nil
}

func (r *Recorder) isEnabled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.enabled
}

// settle notes why recording ended and says it once. It reports whether that was
// a failure: a socket that was closed was closed by us.
func (r *Recorder) settle(err error) (failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.socket = nil
	if err == nil || errors.Is(err, os.ErrClosed) {
		return false
	}
	if r.problem == nil {
		r.log.Warn("denied packets are not recorded", "err", err, "retry_in", retry)
	}
	r.problem = err
	return true
}

// record reads the group until ctx ends or the socket fails.
func (r *Recorder) record(ctx context.Context) error {
	socket, err := nflog.Open(desired.DropGroup)
	if err != nil {
		return err
	}
	defer socket.Close()
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	r.mu.Lock()
	r.socket, r.problem = socket, nil
	stale := !r.enabled
	r.mu.Unlock()
	if stale {
		return nil
	}
	begin, seen := time.Now(), 0
	for {
		var batch []nflog.Packet
		missed, err := socket.Read(func(p nflog.Packet) { batch = append(batch, p) })
		if err != nil {
			return err
		}
		r.note(batch, missed, socket.InterfaceName)
		now := time.Now()
		if now.Sub(begin) >= window {
			begin, seen = now, 0
		}
		if seen += len(batch); seen < perWindow {
			continue
		}
		select { // the rest of the window is for others
		case <-ctx.Done():
			return nil
		case <-time.After(window - now.Sub(begin)):
		}
	}
}

// note takes in packets.
func (r *Recorder) note(batch []nflog.Packet, missed uint64, iface func(int) string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked += uint64(len(batch))
	r.missed += missed
	r.metrics.missed.Add(float64(missed))
	for _, p := range batch {
		k := keyOf(p)
		rec := r.ring.find(k)
		switch {
		case rec == nil:
			rec = r.ring.add(k, r.describe(p, now, iface))
		case rec.words != r.names.version: // a tier may have other policies, an address another pod
			first, count := rec.drop.First, rec.drop.Count
			rec.drop = r.describe(p, first, iface)
			rec.drop.Count = count
		}
		rec.words = r.names.version
		rec.drop.Last, rec.drop.SrcPort = now, p.SrcPort
		rec.drop.Count++
		r.metrics.count(rec.drop.Reason)
	}
}

// describe finds the words to a packet.
func (r *Recorder) describe(p nflog.Packet, first time.Time, iface func(int) string) wire.Drop {
	d := wire.Drop{
		First: first, Node: r.node, Src: p.Src, Dst: p.Dst, SrcPod: r.names.pods[p.Src], DstPod: r.names.pods[p.Dst],
		Protocol: p.Protocol.String(), DstPort: p.DstPort,
	}
	if p.Protocol.HasMessages() {
		d.Message = &wire.Message{Type: p.Type, Code: p.Code}
	}
	if p.In != 0 {
		d.In = iface(p.In)
	}
	if p.Out != 0 {
		d.Out = iface(p.Out)
	}
	d.Reason = r.names.words(p.Prefix, d.In, d.Out)
	return d
}

// news returns what changed since version: drops, and the summary.
func (r *Recorder) news(version uint64) ([]wire.Drop, wire.Summary, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := wire.Summary{Node: r.node, Since: r.since, Looked: r.looked, Missed: r.missed, Evicted: r.ring.evicted}
	switch {
	case !r.enabled:
		s.Problem = "recording is switched off in the NodeConfiguration"
	case r.problem != nil:
		s.Problem = fmt.Sprint(r.problem)
	}
	return r.ring.after(version), s, r.ring.version
}
