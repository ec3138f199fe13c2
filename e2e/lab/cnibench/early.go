package cnibench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/e2e/lab/machine"
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
	from, err := e.attach(ctx, ProberPod)
	if err != nil {
		return err
	}
	defer e.detach(context.WithoutCancel(ctx), ProberPod)
	prober, err := newProber(ProberPod, from)
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

func (e early) attach(ctx context.Context, name string) (netip.Addr, error) {
	rt, err := pod(name)
	if err != nil {
		return netip.Addr{}, err
	}
	return e.add(ctx, e.network, rt)
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
	i := slices.Index(p.addrs, addr)
	if err == nil && i < 0 {
		err = fmt.Errorf("pod %s has %s, which is not probed", name, addr)
	}
	if err != nil {
		return 0, 0, err
	}
	return after[i] - before[i], got.Load(), nil
}

// prober sends to each address of a range in turn.
type prober struct {
	socket int
	addrs  []netip.Addr
	sent   []atomic.Uint64
	stop   atomic.Bool
}

// probed is how many addresses are probed: the two blocks at most that the pods of a
// run are from.
const probed = 128

func newProber(netns string, self netip.Addr) (*prober, error) {
	p := &prober{}
	first := netip.PrefixFrom(self, 25).Masked().Addr()
	for a := first; len(p.addrs) < probed; a = a.Next() {
		p.addrs = append(p.addrs, a)
	}
	p.sent = make([]atomic.Uint64, len(p.addrs))
	err := machine.InNetns(machine.NetnsPath(netns), func() (err error) {
		p.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	return p, os.NewSyscallError("socket", err)
}

func (p *prober) counts() []uint64 {
	all := make([]uint64, len(p.sent))
	for i := range p.sent {
		all[i] = p.sent[i].Load()
	}
	return all
}

// run sends until it is stopped. That an address cannot be reached is no failure.
func (p *prober) run() error {
	defer unix.Close(p.socket)
	to := make([]unix.SockaddrInet4, len(p.addrs))
	for i, a := range p.addrs {
		to[i] = unix.SockaddrInet4{Port: earlyPort, Addr: a.As4()}
	}
	for !p.stop.Load() {
		for i := range to {
			if unix.Sendto(p.socket, []byte("early"), unix.MSG_DONTWAIT, &to[i]) == nil {
				p.sent[i].Add(1)
			}
		}
	}
	return nil
}
