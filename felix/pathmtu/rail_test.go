package pathmtu

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// sent sends trains from a node.
func sent(t *testing.T, n *kerneltest.Namespace, p Peer, wait time.Duration) (trains Trains) {
	t.Helper()
	var err error
	n.Do(func() { trains, err = haul(t.Context(), p, wait) })
	if err != nil {
		t.Fatal(err)
	}
	return trains
}

// slowly puts a queue before what a node sends of large packets alone: it cuts them, as a
// device does, lets so many bits pass in a second, and keeps no more than limit bytes.
func slowly(n *kerneltest.Namespace, rate, limit string) {
	n.Run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb")
	n.Run("tc", "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:3", "htb", "rate", "10gbit")
	n.Run("tc", "qdisc", "add", "dev", "eth0", "parent", "1:3", "handle", "3:", "tbf", "rate", rate, "burst", "2000", "limit", limit)
	n.Run("nft", "add table inet slowly")
	n.Run("nft", "add chain inet slowly out { type filter hook postrouting priority 0; }")
	n.Run("nft", "add rule inet slowly out udp dport 4789 meta length > 3000 meta priority set 1:3")
}

// large counts the large packets that come to a node, and returns what says how many.
func large(n *kerneltest.Namespace) func() string {
	n.Run("nft", "add table inet large")
	n.Run("nft", "add chain inet large in { type filter hook prerouting priority 0; }")
	n.Run("nft", "add rule inet large in udp dport 4789 meta length > 3000 counter")
	return func() string {
		_, counter, _ := strings.Cut(n.Run("nft", "list table inet large"), "packets ")
		count, _, _ := strings.Cut(counter, " ")
		return count
	}
}

// TestAllTrainsArrive where a device hands on what it is given, as veths do, and where it
// cuts it.
func TestAllTrainsArrive(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		near, far, _, peer := tunneled(t, kind)
		uncut := large(far)
		for _, cuts := range []func(){func() {}, func() { slowly(near, "10gbit", "1000000") }} {
			cuts()
			trains := sent(t, near, peer, 5*time.Second)
			if trains.judge() != sane || trains.Finished.Came != loads*perLoad || trains.Cut.Came != loads*perLoad {
				t.Errorf("%+v, want all of both", trains)
			}
			if got := uncut(); got != fmt.Sprint(loads) { // of the first round
				t.Errorf("%s packets arrived uncut, want %d", got, loads)
			}
		}
	})
}

func TestADeviceThatLosesMostOfALargePacketIsFoundOut(t *testing.T) {
	overVXLAN(t, func(t *testing.T, kind desired.TunnelKind) {
		near, _, _, peer := tunneled(t, kind)
		slowly(near, "1mbit", "6000")
		p := proberOf(t, near, peer)
		eventuallySaid(t, near, p, "a device that loses most", func(s Summary) bool {
			if len(s.Offloads) != 1 || s.Offloads[0].Node == "" {
				return false
			}
			o := s.Offloads[0]
			if !o.Segments || o.Trains.Slow() || o.Trains.Cut.Came == 0 || o.Trains.Finished.Came < 44 || o.Intact != 0 {
				t.Fatalf("%+v, want some of what is cut, and all else", o)
			}
			return s.Clear == 1
		})
	})
}

func TestASlowDeviceIsFoundOut(t *testing.T) {
	near, _, _, peer := tunneled(t, desired.VXLAN4)
	slowly(near, "1mbit", "1000000") // 58 kB are 460 ms
	trains := sent(t, near, peer, 5*time.Second)
	if trains.judge() != insane || !trains.Slow() || trains.Cut.Came != loads*perLoad {
		t.Errorf("%+v, want all of it, and late", trains)
	}
}

// TestWhoAnswersNoTrainIsNotJudged: a firewall may keep them from closed ports.
func TestWhoAnswersNoTrainIsNotJudged(t *testing.T) {
	near, far, _, peer := tunneled(t, desired.VXLAN4)
	far.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", fmt.Sprint(closedPort), "-j", "DROP")
	trains := sent(t, near, peer, 50*time.Millisecond)
	if trains.judge() != unsaid || trains.Cut.Segments != 0 {
		t.Errorf("%+v, want only the first one to be sent", trains)
	}
}

// TestACleanPathIsNeverDistrusted: also not while others use it and the processors.
func TestACleanPathIsNeverDistrusted(t *testing.T) {
	near, _, _, peer := tunneled(t, desired.VXLAN4)
	busy(t, near)
	const trials = 200
	var took []time.Duration
	said := map[verdict]int{}
	for range trials {
		trains := sent(t, near, peer, time.Second)
		said[trains.judge()]++
		took = append(took, trains.Finished.Took+trains.Cut.Took)
	}
	slices.Sort(took)
	t.Logf("half of the trials took %s at most, and 99 %% %s", took[trials/2], took[trials*99/100])
	if said[insane] > 0 || said[sane] < trials*9/10 {
		t.Errorf("of %d trials of a clean path %d say that it is not, and %d nothing", trials, said[insane], said[unsaid])
	}
}

// busy sends through the tunnel what it takes, with more senders than there are
// processors, until the test ends.
func busy(t *testing.T, n *kerneltest.Namespace) {
	t.Helper()
	var senders sync.WaitGroup
	over := make(chan struct{})
	t.Cleanup(func() { close(over); senders.Wait() })
	for range runtime.NumCPU() + 1 {
		var c net.Conn
		var err error
		n.Do(func() { c, err = net.Dial("udp", net.JoinHostPort("10.0.0.2", "9")) })
		if err != nil {
			t.Fatal(err)
		}
		senders.Go(func() {
			defer c.Close()
			for data := make([]byte, trainSegment); ; {
				select {
				case <-over:
					return
				default:
					_, _ = c.Write(data) // that nobody listens there is said now and then
				}
			}
		})
	}
}
