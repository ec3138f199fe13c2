package measure

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
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

// enforce creates a policy that closes the pod on the node to, and returns how long
// after that a packet from the other pod came through for the last time. Each
// packet is a connection of its own, or conntrack would let it pass.
func (r *run) enforce(ctx context.Context, from, to string) (time.Duration, error) {
	target, err := r.address(ctx, to)
	if err != nil {
		return 0, err
	}
	addr, err := netip.ParseAddr(target)
	if err != nil {
		return 0, err
	}
	receiver, err := r.netns(ctx, to)
	if err != nil {
		return 0, err
	}
	sender, err := r.netns(ctx, from)
	if err != nil {
		return 0, err
	}
	p := &probe{}
	if err := p.listen(receiver); err != nil {
		return 0, err
	}
	defer p.conn.Close()
	ctx, stop := context.WithTimeout(ctx, giveUp)
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- machine.InNetns(sender, func() error { return p.send(ctx, addr) }) }()
	d, err := r.createAndWait(ctx, p, to)
	stop()
	<-sent
	return d, err
}

func (r *run) createAndWait(ctx context.Context, p *probe, to string) (time.Duration, error) {
	if err := p.wait(ctx, func() bool { return p.lastCame().After(time.Now().Add(-20 * time.Millisecond)) }); err != nil {
		return 0, fmt.Errorf("no packet comes through before there is a policy: %w", err)
	}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "close"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"probe": to}},
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
	for tick := time.NewTicker(probeEvery); ; {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		now := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
		unix.Sendto(fd, now, 0, sa) // refused packets are what we wait for
		unix.Close(fd)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *probe) wait(ctx context.Context, is func() bool) error {
	for tick := time.NewTicker(5 * time.Millisecond); !is(); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// netns finds the network namespace of the probe's pod by its address.
func (r *run) netns(ctx context.Context, node string) (string, error) {
	want, err := r.address(ctx, node)
	if err != nil {
		return "", err
	}
	m := r.Machine(node)
	all, err := os.ReadDir(m.Path("/run/netns"))
	if err != nil {
		return "", err
	}
	for _, ns := range all {
		path := "/run/netns/" + ns.Name()
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, "ip", "-4", "-o", "addr")
		cmd.Stdout = &out
		if m.RunIn(cmd, path) == nil && bytes.Contains(out.Bytes(), []byte(" "+want+"/")) {
			return m.Path(path), nil
		}
	}
	return "", fmt.Errorf("no pod of %s has the address %s", node, want)
}
