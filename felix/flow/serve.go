package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/flow/wire"
)

// lookEvery is how late a follower learns of a drop.
const lookEvery = 250 * time.Millisecond

// maxClients bounds how many are answered at once. It is people who ask.
const maxClients = 16

// Serve answers on the socket wire.Socket in runDir until ctx ends.
func (r *Recorder) Serve(ctx context.Context, runDir string) error {
	if err := ask.Serve(ctx, wire.SocketIn(runDir), maxClients, r.handler()); err != nil {
		return fmt.Errorf("socket of drops: %w", err)
	}
	return nil
}

func (r *Recorder) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.DropsPath, func(w http.ResponseWriter, req *http.Request) {
		f, err := filterOf(req.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", ask.ContentType)
		if err := r.tell(req.Context(), w, f, req.URL.Query().Has(wire.FollowParam)); err != nil {
			r.log.Debug("who asked for drops went away", "err", err)
		}
	})
	return mux
}

// tell writes the drops that there are, and with follow what comes until ctx ends.
func (r *Recorder) tell(ctx context.Context, w http.ResponseWriter, f filter, follow bool) error {
	out := json.NewEncoder(w)
	var version uint64
	var said wire.Summary
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		drops, summary, now := r.news(version)
		version = now
		for _, d := range drops {
			if f.wants(d) {
				if err := out.Encode(wire.Line{Drop: &d}); err != nil {
					return err
				}
			}
		}
		if first || summary.Missed != said.Missed || summary.Problem != said.Problem {
			said = summary
			if err := out.Encode(wire.Line{Summary: &summary}); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// filter chooses drops by the ends they concern; an empty one wants all.
type filter struct {
	pods  []string
	addrs []netip.Addr
}

func filterOf(params map[string][]string) (f filter, err error) {
	f.pods = params[wire.PodParam]
	for _, text := range params[wire.AddrParam] {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return f, fmt.Errorf("%s is %q, expected an address", wire.AddrParam, text)
		}
		f.addrs = append(f.addrs, a)
	}
	return f, nil
}

func (f filter) wants(d wire.Drop) bool {
	if len(f.pods)+len(f.addrs) == 0 {
		return true
	}
	return slices.Contains(f.addrs, d.Src) || slices.Contains(f.addrs, d.Dst) ||
		slices.ContainsFunc([]string{d.SrcPod, d.DstPod, d.Reason.Endpoint}, func(pod string) bool { return slices.Contains(f.pods, pod) })
}
