package cnibench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/felix/desired"
)

// What Early attaches: a pod from which probes are sent, pods that a policy closes,
// and pods that none does. The API server knows all of them already.
const (
	ProberPod = "early-prober"
	ClosedPod = "early-closed-" // and a number
	OpenPod   = "early-open-"
)

const (
	earlyPort  = 9
	earlyAfter = 120 * time.Millisecond // how long probes go on after ADD has answered
	openPods   = 3
)

// Early attaches pods that a policy closes while probes are sent to each address of
// the node, without a pause, and writes how many were sent to the pods and how many
// arrived. That one arrived is an error. So is it if none arrives at pods that
// no policy closes: then nothing was tried.
func Early(ctx context.Context, c Config, w io.Writer) error {
	own, err := ownNetwork(c.ConfDir)
	if err != nil {
		return err
	}
	e := early{bench: newBench(c), network: &network{name: own.Name, list: own}}
	err = e.attach(ctx, ProberPod)
	if err != nil {
		return err
	}
	defer e.detach(context.WithoutCancel(ctx), ProberPod)
	prober, err := newProber(ProberPod)
	if err == nil {
		err = prober.follow(ctx)
	}
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(prober.run)
	sent, arrived, open := uint64(0), uint64(0), uint64(0)
	for i := range c.Count + openPods {
		name := fmt.Sprint(ClosedPod, i)
		if i >= c.Count {
			name = fmt.Sprint(OpenPod, i-c.Count)
		}
		n, got, tryErr := e.try(ctx, name, prober)
		if err = tryErr; err != nil {
			break
		}
		if i >= c.Count {
			open += got
		} else {
			sent, arrived = sent+n, arrived+got
		}
	}
	prober.stop.Store(true)
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	fmt.Fprintf(w, "early probes: %d sent to %d pods that a policy closes, %d arrived; %d arrived at %d pods that are open\n",
		sent, c.Count, arrived, open, openPods)
	switch {
	case arrived > 0:
		return errors.New("a policy was passed while its pod was attached")
	case open == 0 || sent == 0:
		return errors.New("no probe reaches even an open pod: nothing was tried")
	}
	return nil
}

type early struct {
	bench
	network *network
}

func (e early) attach(ctx context.Context, name string) error {
	rt, err := pod(name)
	if err == nil {
		_, err = e.add(ctx, e.network, rt)
	}
	return err
}

func (e early) detach(ctx context.Context, name string) {
	_ = e.cni.DelNetworkList(ctx, e.network.list, runtimeConf(name)) // the lab goes with all that is left
	_ = machine.RemoveNetns(name)
}

// try attaches one pod under probes, and returns how many were sent to it and how
// many came in.
func (e early) try(ctx context.Context, name string, p *prober) (sent, arrived uint64, err error) {
	rt, err := pod(name)
	if err != nil {
		return 0, 0, err
	}
	defer e.detach(context.WithoutCancel(ctx), name)
	var inside net.PacketConn
	err = machine.InNetns(rt.NetNS, func() (err error) {
		inside, err = net.ListenPacket("udp", fmt.Sprint(":", earlyPort))
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	var got atomic.Uint64
	var g errgroup.Group
	g.Go(func() error {
		for buf := make([]byte, 64); ; got.Add(1) {
			if _, _, err := inside.ReadFrom(buf); err != nil {
				return nil // it was closed
			}
		}
	})
	// The pod may be the one for which the node claims another block.
	if err := p.follow(ctx); err != nil {
		return 0, 0, err
	}
	before := p.counts()
	addr, err := e.add(ctx, e.network, rt)
	if err == nil {
		select {
		case <-time.After(earlyAfter):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	after := p.counts()
	inside.Close()
	_ = g.Wait()
	if _, probed := before[addr]; err == nil && !probed {
		err = fmt.Errorf("pod %s has %s, which is not probed: blocks of the node are %v", name, addr, p.blocks)
	}
	if err != nil {
		return 0, 0, err
	}
	return after[addr] - before[addr], got.Load(), nil
}

// prober sends to each address of the node's blocks in turn.
type prober struct {
	socket int
	blocks []netip.Prefix
	aims   atomic.Pointer[[]aim] // replaced, never changed
	stop   atomic.Bool
}

// aim is an address that is probed.
type aim struct {
	addr netip.Addr
	to   unix.SockaddrInet4
	sent *atomic.Uint64
}

func newProber(netns string) (*prober, error) {
	p := &prober{}
	p.aims.Store(&[]aim{})
	err := machine.InNetns(machine.NetnsPath(netns), func() (err error) {
		p.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	return p, os.NewSyscallError("socket", err)
}

// follow takes the blocks of the node among those that are probed: the node claims
// a block before it needs it, so that the next pod is of one that has its route.
func (p *prober) follow(ctx context.Context) error {
	blocks, err := ownBlocks(ctx)
	if err != nil {
		return err
	}
	aims := slices.Clone(*p.aims.Load())
	for _, b := range blocks {
		if slices.Contains(p.blocks, b) {
			continue
		}
		p.blocks = append(p.blocks, b)
		for a := b.Addr(); b.Contains(a); a = a.Next() {
			aims = append(aims, aim{a, unix.SockaddrInet4{Port: earlyPort, Addr: a.As4()}, new(atomic.Uint64)})
		}
	}
	p.aims.Store(&aims)
	return nil
}

// ownBlocks returns the blocks of IPv4 that the node owns, as its routes tell: what
// no pod has of them is unreachable.
func ownBlocks(ctx context.Context) ([]netip.Prefix, error) {
	out, err := exec.CommandContext(ctx, "ip", "-4", "-json", "route", "show", "type", "unreachable", "proto", fmt.Sprint(desired.RouteProtocol)).Output()
	if err != nil {
		return nil, fmt.Errorf("blocks of the node: %w", err)
	}
	var routes []struct {
		Dst netip.Prefix `json:"dst"`
	}
	if err := json.Unmarshal(out, &routes); err != nil {
		return nil, fmt.Errorf("blocks of the node: %w", err)
	}
	blocks := make([]netip.Prefix, len(routes))
	for i, r := range routes {
		blocks[i] = r.Dst
	}
	return blocks, nil
}

func (p *prober) counts() map[netip.Addr]uint64 {
	all := map[netip.Addr]uint64{}
	for _, a := range *p.aims.Load() {
		all[a.addr] = a.sent.Load()
	}
	return all
}

// run sends until it is stopped. That an address cannot be reached is no failure.
func (p *prober) run() error {
	defer unix.Close(p.socket)
	for !p.stop.Load() {
		for _, a := range *p.aims.Load() {
			if unix.Sendto(p.socket, []byte("early"), unix.MSG_DONTWAIT, &a.to) == nil {
				a.sent.Add(1)
			}
		}
	}
	return nil
}
