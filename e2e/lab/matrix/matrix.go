// Package matrix asks from every end to every other end of a lab and compares
// what got through with what policy/eval predicts from the objects in the API
// server.
package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/e2e/lab"
)

// End is a pod or machine, Name as lab.Exec takes it, with one of its addresses.
type End struct {
	Name string
	Addr netip.Addr
}

// Pair is a direction between two ends.
type Pair struct{ From, To End }

func (p Pair) String() string { return p.From.Name + " -> " + p.To.Name }

// Pairs are all pairs of different ends.
func Pairs(ends []End) []Pair {
	var out []Pair
	for _, from := range ends {
		for _, to := range ends {
			if from != to {
				out = append(out, Pair{from, to})
			}
		}
	}
	return out
}

// Probe is how pairs are tried.
type Probe struct {
	// Protocol is tcp, udp or icmp; Port counts for the first two.
	Protocol string
	Port     uint16
	// Wait is how long an answer may take.
	Wait time.Duration
}

func (p Probe) String() string {
	if p.Protocol == "icmp" {
		return p.Protocol
	}
	return fmt.Sprintf("%s/%d", p.Protocol, p.Port)
}

// inFlight bounds the probes under way at a time.
const inFlight = 16

// Try tries all pairs and returns, for each, why it did not get through; nil
// if it did. An answer from the wrong server, or to an address that is not the
// asker's, is an error too.
func (p Probe) Try(ctx context.Context, l *lab.Lab, pairs []Pair) map[Pair]error {
	var mu sync.Mutex // guards out
	out := map[Pair]error{}
	var g errgroup.Group
	g.SetLimit(inFlight)
	for _, pair := range pairs {
		g.Go(func() error {
			err := p.try(ctx, l, pair)
			mu.Lock()
			defer mu.Unlock()
			out[pair] = err
			return nil
		})
	}
	g.Wait()
	return out
}

// ErrWrongAnswer says that something answered, but not as it should.
var ErrWrongAnswer = errors.New("wrong answer")

func (p Probe) try(ctx context.Context, l *lab.Lab, pair Pair) error {
	if p.Protocol == "icmp" {
		cmd := exec.CommandContext(ctx, "ping", "-n", "-c1", "-W", fmt.Sprint(p.Wait.Seconds()), pair.To.Addr.String())
		return l.Exec(pair.From.Name, cmd)
	}
	r, err := l.Ask(pair.From.Name, p.Protocol, netip.AddrPortFrom(pair.To.Addr, p.Port), p.Wait)
	if err != nil {
		return err
	}
	if r.Client.Addr() != pair.From.Addr {
		return fmt.Errorf("%w: %s saw %s, not %s", ErrWrongAnswer, r.Server, r.Client.Addr(), pair.From.Addr)
	}
	if r.Server != pair.To.Name {
		return fmt.Errorf("%w: %s answered", ErrWrongAnswer, r.Server)
	}
	return nil
}

// All returns an error that names the pairs which do not get through.
func (p Probe) All(ctx context.Context, l *lab.Lab, pairs []Pair) error {
	return blame(p.Try(ctx, l, pairs), func(_ Pair, err error) error { return err })
}

// As compares what gets through with what is expected to, and returns an error
// that names the pairs which differ.
func (p Probe) As(ctx context.Context, l *lab.Lab, pairs []Pair, open func(Pair) bool) error {
	return blame(p.Try(ctx, l, pairs), func(pair Pair, err error) error {
		switch want := open(pair); {
		case errors.Is(err, ErrWrongAnswer):
			return err
		case want && err != nil:
			return fmt.Errorf("closed, but predicted open: %w", err)
		case !want && err == nil:
			return errors.New("open, but predicted closed")
		}
		return nil
	})
}

// blame lists what judge complains about, in a stable order, at most a few.
func blame(results map[Pair]error, judge func(Pair, error) error) error {
	var lines []string
	for pair, err := range results {
		if err := judge(pair, err); err != nil {
			lines = append(lines, fmt.Sprintf("%s: %v", pair, err))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	total := len(lines)
	return fmt.Errorf("%d of %d pairs: %s", total, len(results), strings.Join(lines[:min(total, 4)], "; "))
}
