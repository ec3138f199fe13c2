package measure

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/koratnet/korat/e2e/lab/machine"
)

const (
	probePort  = 7007
	probeEvery = time.Millisecond
	settled    = 500 * time.Millisecond // of losses alone: the policy is in force
	giveUp     = 30 * time.Second
)

// enforce creates a policy that closes the pod to, and returns how long after that a
// packet from the other pod came through for the last time. Each packet is a
// connection of its own, or conntrack would let it pass.
func (r *run) enforce(ctx context.Context, from, to pod) (time.Duration, error) {
	p := &probe{}
	if err := p.listen(to.netns); err != nil {
		return 0, err
	}
	defer p.conn.Close()
	ctx, stop := context.WithTimeout(ctx, giveUp)
	defer stop()
	sent := make(chan error, 1)
	go func() {
		err := machine.InNetns(from.netns, func() error { return p.send(ctx, to.addr) })
		stop() // nobody waits for packets that nobody sends
		sent <- err
	}()
	d, err := r.createAndWait(ctx, p, to.name)
	stop()
	return d, errors.Join(err, <-sent)
}

func (r *run) createAndWait(ctx context.Context, p *probe, pod string) (time.Duration, error) {
	if err := p.wait(ctx, func() bool { return p.lastCame().After(time.Now().Add(-20 * time.Millisecond)) }); err != nil {
		return 0, fmt.Errorf("no packet comes through before there is a policy: %w", err)
	}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "close"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{probeLabel: pod}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		},
	}
	start := time.Now()
	if err := r.Client.Create(ctx, policy); err != nil {
		return 0, err
	}
	err := p.wait(ctx, func() bool { return time.Since(p.lastCame()) > settled })
	last := p.lastCame()
	if err := r.Client.Delete(context.WithoutCancel(ctx), policy); err != nil {
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("the policy is not in force: %w", err)
	}
	return max(last.Sub(start), 0), nil
}

// probe sends one packet a millisecond and notes which of them came.
type probe struct {
	conn *net.UDPConn

	mu   sync.Mutex // guards last
	last time.Time  // when the last packet that came was sent
}

func (p *probe) lastCame() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *probe) listen(netns string) error {
	err := machine.InNetns(netns, func() (err error) {
		p.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: probePort})
		return err
	})
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 8)
		for {
			if n, _, err := p.conn.ReadFrom(buf); err != nil {
				return
			} else if n == 8 {
				p.mu.Lock()
				p.last = time.Unix(0, int64(binary.BigEndian.Uint64(buf)))
				p.mu.Unlock()
			}
		}
	}()
	return nil
}

// send runs on a thread of its own in the sender's namespace.
func (p *probe) send(ctx context.Context, to netip.Addr) error {
	sa := &unix.SockaddrInet4{Port: probePort, Addr: to.As4()}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		now := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
		err = unix.Sendto(fd, now, 0, sa) // a packet that policy drops on its way is no error
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("probe to %s: %w", to, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *probe) wait(ctx context.Context, is func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
