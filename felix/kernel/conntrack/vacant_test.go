package conntrack

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// TestItem26ConnectionsOfAnAddressThatNobodyHad: an address of an own block leads
// nowhere until a pod has it, but somebody on the link sends with it as source. The
// pod that gets it must not be reached by what was allowed to answer that.
func TestItem26ConnectionsOfAnAddressThatNobodyHad(t *testing.T) {
	eachPlane(t, func(t *testing.T, over plane, v6 bool) {
		l := newLabOver(t, over, false)
		vacant := []string{"10.1.0.9", "fd01::9"}
		block := []string{"10.1.0.0/26", "fd01::/122"}[family(v6)]
		addr := netip.MustParseAddr(vacant[family(v6)])
		l.host.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
		l.host.Run("ip", "route", "add", "unreachable", block)

		b := l.listen("b", l.sites["b"].addrs[family(v6)])
		l.forge(addr, b)
		kerneltest.Eventually(t, "an answer to an address that nobody has", func() bool {
			all := l.entries(addr)
			return len(all) == 1 && all[0].status&statusSeenReply != 0
		})

		l.attach("c", "korc", vacant[0], vacant[1])
		c := l.listen("c", addr)
		l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"korc": l.endpoint("c", allDenied, allDenied)}})
		if left := l.entries(addr); len(left) != 0 {
			t.Errorf("the first owner of the address inherits %+v", left)
		}
		if passes(t, b, c) {
			t.Error("a pod that nobody may talk to is reached as if it had asked")
		}
	})
}

// statusSeenReply is IPS_SEEN_REPLY: to the kernel the connection is established.
const statusSeenReply = 1 << 1

// listen opens the port on which sites serve over UDP.
func (l *lab) listen(name string, addr netip.Addr) (a *answerer) {
	l.t.Helper()
	l.sites[name].ns.Do(func() {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 8080)))
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { c.Close() })
		a = &answerer{PacketConn: c}
	})
	return a
}

// forge lets outside send to b with an address that it does not keep, and b answer.
func (l *lab) forge(source netip.Addr, b *answerer) {
	l.t.Helper()
	outside := l.sites["outside"].ns
	full := netip.PrefixFrom(source, source.BitLen()).String()
	args := []string{"addr", "add", full, "dev", "eth0"}
	if source.Is6() {
		args = append(args, "nodad")
	}
	outside.Run("ip", args...)
	outside.Do(func() {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 8080)))
		if err != nil {
			l.t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.WriteTo([]byte("!"), b.LocalAddr()); err != nil {
			l.t.Fatal(err)
		}
	})
	if err := b.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	if _, err := b.Read(make([]byte, 1)); err != nil {
		l.t.Fatalf("what is forged does not arrive: %v", err)
	}
	if _, err := b.Write([]byte("!")); err != nil {
		l.t.Fatal(err)
	}
	outside.Run("ip", "addr", "del", full, "dev", "eth0")
}
