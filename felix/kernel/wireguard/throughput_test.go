package wireguard_test

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

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
	if err := enter(namespace); err != nil {
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

// BenchmarkBesideByHand takes turns between our tunnel, one made by hand, and the
// plain underlay.
func BenchmarkBesideByHand(b *testing.B) {
	_, all := joined(b, desired.WireGuard4, 2)
	x, y := all[0], all[1]
	insideY := byHand(b, x, y)
	kerneltest.Race{
		From: x.Namespace, To: y.Namespace, Bytes: 4 << 20, Trips: 100,
		Ways: map[string]string{"ours": y.inside.String(), "byhand": insideY, "plain": y.underlay.String()},
	}.Run(b)
}
