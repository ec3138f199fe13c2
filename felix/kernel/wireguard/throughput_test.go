package wireguard_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// byHand makes the same tunnel as its authors tell to, on another port, and returns
// the address of b inside.
func byHand(t testing.TB, a, b *site) (insideB string) {
	t.Helper()
	const handPort = port + 9
	type hand struct {
		s      *site
		inside string
		key    wgtypes.Key
	}
	hands := []hand{{s: a, inside: "10.9.0.1"}, {s: b, inside: "10.9.0.2"}}
	for i := range hands {
		var err error
		if hands[i].key, err = wgtypes.GeneratePrivateKey(); err != nil {
			t.Fatal(err)
		}
	}
	for i, h := range hands {
		o := hands[1-i]
		listen := handPort
		h.s.make(t, wgtypes.Config{PrivateKey: &h.key, ListenPort: &listen, Peers: []wgtypes.PeerConfig{{
			PublicKey: o.key.PublicKey(), Endpoint: net.UDPAddrFromAddrPort(netip.AddrPortFrom(o.s.underlay, handPort)),
			AllowedIPs: []net.IPNet{{IP: net.ParseIP(o.inside), Mask: net.CIDRMask(32, 32)}},
		}}})
		for _, command := range []string{"ip link set hand mtu 1440 up", "ip addr add " + h.inside + "/32 dev hand", "ip route add " + o.inside + "/32 dev hand"} {
			f := strings.Fields(command)
			h.s.Run(f[0], f[1:]...)
		}
	}
	return hands[1].inside
}

// make makes an interface by hand: in the kernel, or in a process as wireguard-go is.
func (s *site) make(t testing.TB, c wgtypes.Config) {
	t.Helper()
	if _, err := s.Try("ip", "link", "add", "hand", "type", "wireguard"); err == nil {
		s.Do(func() {
			client, err := wgctrl.New()
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.ConfigureDevice("hand", c); err != nil {
				t.Fatal(err)
			}
		})
		return
	}
	cmd := exec.Command("/proc/self/exe", "hand", s.Path(), string(wireguard.Request(c)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the kernel's scheduler looks at sessions
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
	})
	kerneltest.Eventually(t, "the interface made by hand is there", func() bool {
		_, err := s.LinkByName("hand")
		return err == nil
	})
}

// hand is a process of one interface, as its authors would have it.
func hand(namespace, request string) error {
	runtime.LockOSThread()
	ns, err := netns.GetFromPath(namespace)
	if err != nil {
		return err
	}
	if err := netns.Set(ns); err != nil {
		return err
	}
	inside, err := tun.CreateTUN("hand", 1440)
	if err != nil {
		return err
	}
	// Sockets are opened by this thread, which alone is in the namespace.
	d := device.NewDevice(inside, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	if err := d.IpcSet(strings.TrimPrefix(request, "set=1\n")); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	<-d.Wait()
	return nil
}

// connect opens a TCP connection from a to the address of b.
func connect(t testing.TB, a, b *site, to string) (client, server net.Conn) {
	t.Helper()
	var l net.Listener
	var err error
	b.Do(func() { l, err = net.Listen("tcp", net.JoinHostPort(to, "0")) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	a.Do(func() { client, err = net.DialTimeout("tcp", l.Addr().String(), time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// transfer returns how long a number of bytes take.
func transfer(t testing.TB, client, server net.Conn, bytes int64) time.Duration {
	t.Helper()
	done := make(chan error, 1)
	begin := time.Now()
	go func() {
		_, err := io.CopyN(io.Discard, server, bytes)
		done <- err
	}()
	chunk := make([]byte, 128<<10)
	for sent := int64(0); sent < bytes; sent += int64(len(chunk)) {
		if _, err := client.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// roundTrips returns how long so many answers take.
func roundTrips(t testing.TB, client, server net.Conn, count int) time.Duration {
	t.Helper()
	go func() { _, _ = io.CopyN(server, server, int64(count)) }()
	one := make([]byte, 1)
	begin := time.Now()
	for range count {
		if _, err := client.Write(one); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, one); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(begin)
}

// BenchmarkBesideByHand takes turns between our tunnel, one made by hand, and the
// plain underlay, and prints the ratios of the best of each.
func BenchmarkBesideByHand(b *testing.B) {
	_, all := joined(b, desired.WireGuard4, 2)
	x, y := all[0], all[1]
	insideY := byHand(b, x, y)
	best := map[string]map[string]time.Duration{"throughput": {}, "roundtrips": {}}
	type pair struct{ client, server net.Conn }
	ways := map[string]pair{}
	for name, to := range map[string]string{"ours": y.inside.String(), "byhand": insideY, "plain": y.underlay.String()} {
		c, s := connect(b, x, y, to)
		ways[name] = pair{c, s}
	}
	note := func(what, way string, took time.Duration) {
		if d, known := best[what][way]; !known || took < d {
			best[what][way] = took
		}
	}
	for b.Loop() {
		for way, p := range ways {
			note("throughput", way, transfer(b, p.client, p.server, 4<<20))
			note("roundtrips", way, roundTrips(b, p.client, p.server, 100))
		}
	}
	for what, of := range best {
		b.ReportMetric(of["byhand"].Seconds()/of["ours"].Seconds(), what+"/byhand")
		b.ReportMetric(of["plain"].Seconds()/of["ours"].Seconds(), what+"/plain")
	}
	b.Logf("best: %s", fmt.Sprint(best))
}
