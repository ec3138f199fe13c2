//go:build encryption

package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
)

// transfer is a connection between two nodes by which bytes go all the time.
type transfer struct{ received atomic.Int64 }

// transferBetween begins one, to an address of the other node.
func transferBetween(t *testing.T, from, to string, at netip.AddrPort) *transfer {
	t.Helper()
	var l net.Listener
	var c net.Conn
	err := machine.InNetns(machine.NetnsPath(cluster.Machine(to).Netns), func() (err error) {
		l, err = net.Listen("tcp4", at.String())
		return err
	})
	if err == nil {
		err = machine.InNetns(machine.NetnsPath(cluster.Machine(from).Netns), func() (err error) {
			c, err = net.Dial("tcp4", at.String())
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	x, done := &transfer{}, make(chan struct{}, 2)
	t.Cleanup(func() {
		l.Close()
		server.Close()
		c.Close()
		<-done
		<-done
	})
	go func() {
		defer func() { done <- struct{}{} }()
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		block := make([]byte, 32<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
			<-pace.C
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		block := make([]byte, 64<<10)
		for {
			n, err := server.Read(block)
			if x.received.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	return x
}

// goesOn waits until a megabyte more has come.
func (x *transfer) goesOn(t *testing.T) {
	t.Helper()
	before := x.received.Load()
	eventually(t, "the transfer goes on", func(context.Context) error {
		if n := x.received.Load() - before; n < 1<<20 {
			return fmt.Errorf("%d bytes: %w", n, io.ErrNoProgress)
		}
		return nil
	})
}

// hostTraffic says whether what nodes send each other is encrypted.
func hostTraffic(t *testing.T, how koratv1.HostTraffic) {
	t.Helper()
	c := &koratv1.NodeConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "encryption"}}
	change(t, c, func() { c.Spec.Encryption.HostTraffic = how })
}

// leavesBy says which nodes are reached from others by another interface than dev.
func leavesBy(ctx context.Context, dev string, from []string, to map[string]netip.Addr) error {
	var errs []error
	for _, node := range from {
		for other, addr := range to {
			if other == node {
				continue
			}
			text, err := try(ctx, cluster, node, "ip", "route", "get", addr.String())
			if err == nil && !strings.Contains(text, "dev "+dev+" ") {
				err = fmt.Errorf("%s to %s: %s", node, other, text)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sessionsOf returns since when the sessions of a node stand.
func sessionsOf(t *testing.T, node string) (since []string) {
	t.Helper()
	var n koratv1.NodeNetwork
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: node}, &n); err != nil {
		t.Fatal(err)
	}
	for _, s := range n.Status.Sessions {
		since = append(since, fmt.Sprint(s.Address, " ", s.State, " ", s.Since))
	}
	return since
}

// TestWhatNodesSendEachOtherIsNotInClearWhileThatIsProvedToWork: what a node sends to
// another is encrypted from when both have shaken hands, and in clear again when one has
// lost its key or its process, though nobody tells of it, and the API server is away too.
// Sessions of BGP, connections, and what pods send do not notice.
func TestWhatNodesSendEachOtherIsNotInClearWhileThatIsProvedToWork(t *testing.T) {
	namespace(t, cluster, "hosts")
	encrypt(t, koratv1.EncryptionPreferred)
	t.Cleanup(func() { hostTraffic(t, koratv1.HostTrafficDisabled) })
	nodes, addrs := []string{"a1", "a2", "b1", "b2"}, map[string]netip.Addr{}
	for _, node := range nodes {
		addrs[node] = addressOf(t, node)
	}
	pods := map[string]netip.Addr{}
	for _, node := range []string{"a1", "a2"} {
		pods[node] = start(t, cluster, podOn(node, "hosts", node, nil))
	}
	ofPods := pingFlow(t, cluster, "hosts/a1", pods["a2"])
	bulk := transferBetween(t, "a1", "b1", netip.AddrPortFrom(addrs["b1"], 7778))
	heardSince(t, []*flow{ofPods}, time.Now())
	bulk.goesOn(t)
	sessions := sessionsOf(t, "a1")
	if len(sessions) == 0 {
		t.Fatal("a1 has no sessions")
	}

	hostTraffic(t, koratv1.HostTrafficPreferred)
	eventually(t, "all nodes send encrypted to all others", func(ctx context.Context) error { return leavesBy(ctx, "wg4-korat", nodes, addrs) })
	bulk.goesOn(t)
	const size = 100 // of echo requests of the test; nodes try their ways to each other in clear
	wire := capture(t, "a1", fmt.Sprintf("tcp port 7778 or udp port 7779 or icmp and ip[2:2] = %d", size+28))
	ofNodes := []*flow{
		pingFlow(t, cluster, "a1", addrs["b1"], "-s", fmt.Sprint(size)), pingFlow(t, cluster, "b2", addrs["a1"], "-s", fmt.Sprint(size)),
	}
	heardSince(t, ofNodes, time.Now())
	sh(t, cluster, "a1", "sh", "-c", fmt.Sprintf("echo datagram | socat - UDP4-SENDTO:%s:7779", addrs["b1"]))
	bulk.goesOn(t)
	if err := errors.Join(cluster.KillAgent(t.Context(), "a1"), cluster.StartAgent(t.Context(), "a1")); err != nil {
		t.Fatal(err)
	}
	heardSince(t, ofNodes, time.Now())
	bulk.goesOn(t)
	if text := wire.Seen(); text != "" {
		t.Errorf("what nodes send each other was in clear:\n%s", text[:min(len(text), 2000)])
	}
	if now := sessionsOf(t, "a1"); strings.Join(now, "; ") != strings.Join(sessions, "; ") {
		t.Errorf("sessions were %v, and are %v", sessions, now)
	}
	ofNodes[1].end() // of b2, which loses its key
	for _, f := range []*flow{ofPods, ofNodes[1]} {
		if sent, lost := f.count(); len(lost) > 0 {
			t.Errorf("%s lost %d of %d packets: %v", f.name, len(lost), sent, lost[:min(len(lost), 50)])
		}
	}

	// b1 loses its process, and b2 its key, and its agent stays away. So is the API server,
	// without which the agents of b1 and a2 begin.
	for _, node := range []string{"b1", "b2", "a2"} {
		if err := cluster.KillAgent(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, cluster, "b1", "pkill", "-KILL", "-f", "korat wireguard .*--device wg4-korat")
	sh(t, cluster, "b2", "ip", "link", "del", "wg4-korat")
	if err := errors.Join(os.Remove(cluster.Machine("b2").Path("/var/lib/korat/wireguard.key")), cluster.StopAPI(t.Context())); err != nil {
		t.Fatal(err)
	}
	back := false
	comeBack := func(ctx context.Context) error {
		back = true
		return errors.Join(cluster.StartAPI(ctx), cluster.StartAgent(ctx, "b2"), cluster.WaitAgent(ctx, "b1"), cluster.WaitAgent(ctx, "a2"))
	}
	t.Cleanup(func() {
		if back {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patient(time.Minute))
		defer cancel()
		if err := comeBack(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, node := range []string{"a2", "b1"} {
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := cluster.StartAgent(soon, node); err == nil {
			t.Errorf("the agent of %s is ready without the API server", node)
		}
		cancel()
	}
	lost := map[string]netip.Addr{"b1": addrs["b1"], "b2": addrs["b2"]}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patient(4*time.Minute))
	defer cancel()
	if err := lab.Eventually(ctx, func(ctx context.Context) error { return leavesBy(ctx, "eth0", []string{"a1", "a2"}, lost) }); err != nil {
		t.Fatalf("ways that are not proved any more: %v", err)
	}
	t.Logf("nodes without tunnel are reached in clear after %s", time.Since(begun).Round(time.Second))
	for _, node := range []string{"a1", "a2"} {
		for _, addr := range lost {
			sh(t, cluster, node, "ping", "-c1", "-W10", addr.String())
		}
	}
	// The other one waits, longer and longer, before it sends again.
	bulk = transferBetween(t, "a1", "b1", netip.AddrPortFrom(addrs["b1"], 7780))
	bulk.goesOn(t)
	if err := leavesBy(t.Context(), "wg4-korat", []string{"a1"}, map[string]netip.Addr{"a2": addrs["a2"]}); err != nil {
		t.Errorf("and others are not: %v", err)
	}

	if err := comeBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all nodes send encrypted again", func(ctx context.Context) error { return leavesBy(ctx, "wg4-korat", nodes, addrs) })
	bulk.goesOn(t)
	hostTraffic(t, koratv1.HostTrafficDisabled)
	eventually(t, "all nodes send in clear", func(ctx context.Context) error {
		for _, node := range nodes {
			if text, err := try(ctx, cluster, node, "ip", "rule", "show", "protocol", "113"); err != nil || strings.Contains(text, "11211") {
				return errors.Join(err, fmt.Errorf("%s: %s", node, text))
			}
		}
		return leavesBy(ctx, "eth0", nodes, addrs)
	})
	bulk.goesOn(t)
	ofPods.end()
	if sent, lost := ofPods.count(); len(lost) > 0 {
		t.Errorf("%s lost %d of %d packets: %v", ofPods.name, len(lost), sent, lost[:min(len(lost), 50)])
	}
}
