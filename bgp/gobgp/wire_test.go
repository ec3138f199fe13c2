package gobgp_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// The speaker and the neighbour that the test plays, byte by byte.
var (
	speakerAddr   = netip.MustParseAddr("127.9.0.1")
	neighbourAddr = netip.MustParseAddr("127.9.0.2")
	absentAddr    = netip.MustParseAddr("127.9.0.3")
)

const (
	speakerAS   = 64512
	neighbourAS = 65001
)

// plain is a speaker with the played neighbour, which calls, and an absent one.
func plain(t *testing.T, restarted bool, change func(*bgp.Config)) (*gobgp.Speaker, *bgp.Config) {
	t.Helper()
	port, err := kerneltest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c := &bgp.Config{
		ASN: speakerAS, RouterID: speakerAddr, ListenPort: port, RestartTime: 30 * time.Second,
		Peers: []bgp.Peer{
			{
				Name: "bgppeer/played", Addr: neighbourAddr, Port: port, ASN: neighbourAS, LocalAddr: speakerAddr,
				Hold: 9 * time.Second, Advertise: bgp.Blocks | bgp.Hosts, Passive: true,
			},
			{Name: "bgppeer/absent", Addr: absentAddr, Port: port, ASN: speakerAS, LocalAddr: speakerAddr, Passive: true},
		},
	}
	if change != nil {
		change(c)
	}
	s := gobgp.New(gobgp.Options{Log: slog.New(slog.DiscardHandler), Restarted: restarted})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Announce(t.Context(), []bgp.Path{block, pod, block6}); err != nil {
		t.Fatal(err)
	}
	if err := s.Configure(t.Context(), *c); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// wire is the neighbour's end of a connection.
type wire struct {
	net.Conn
	t      *testing.T
	option *packet.MarshallingOption
}

// call connects and returns with the speaker's OPEN. The speaker hangs up on
// calls that come before it is ready for them.
func call(t *testing.T, c *bgp.Config) (*wire, *packet.BGPOpen) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(neighbourAddr, 0))}
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		conn, err := d.Dial("tcp4", netip.AddrPortFrom(speakerAddr, c.ListenPort).String())
		if err == nil {
			w := &wire{Conn: conn, t: t, option: &packet.MarshallingOption{}}
			var m *packet.BGPMessage
			if m, err = w.read(); err == nil {
				t.Cleanup(func() { conn.Close() })
				return w, m.Body.(*packet.BGPOpen)
			}
			conn.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("call the speaker: %v", err)
		}
	}
}

func (w *wire) read() (*packet.BGPMessage, error) {
	w.SetReadDeadline(time.Now().Add(15 * time.Second))
	head := make([]byte, packet.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(w, head); err != nil {
		return nil, err
	}
	var h packet.BGPHeader
	if err := h.DecodeFromBytes(head); err != nil {
		return nil, err
	}
	body := make([]byte, int(h.Len)-packet.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(w, body); err != nil {
		return nil, err
	}
	return packet.ParseBGPBody(&h, body, w.option)
}

func (w *wire) send(m *packet.BGPMessage, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := m.Serialize(w.option)
	if err != nil {
		w.t.Fatal(err)
	}
	w.sendBytes(b)
}

func (w *wire) sendBytes(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// open answers OPEN and ends the handshake.
func (w *wire) open(asn uint16, hold uint16, caps ...packet.ParameterCapabilityInterface) {
	w.t.Helper()
	var options []packet.OptionParameterInterface
	if len(caps) > 0 {
		options = append(options, packet.NewOptionParameterCapability(caps))
	}
	w.send(packet.NewBGPOpenMessage(asn, hold, neighbourAddr, options))
	w.send(packet.NewBGPKeepAliveMessage(), nil)
}

func modern(asn uint32) []packet.ParameterCapabilityInterface {
	return []packet.ParameterCapabilityInterface{
		packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapFourOctetASNumber(asn),
		packet.NewCapGracefulRestart(false, true, 30, []*packet.CapGracefulRestartTuple{
			packet.NewCapGracefulRestartTuple(packet.RF_IPv4_UC, false),
		}),
	}
}

func TestOpenSaysWhetherWeRestarted(t *testing.T) {
	for name, tc := range map[string]struct {
		restarted bool
		time      time.Duration
		want      string
	}{
		"first start":         {false, 30 * time.Second, "time 30 flags 4 families [{1 1 0}]"},
		"restart":             {true, 30 * time.Second, "time 30 flags 12 families [{1 1 128}]"},
		"no graceful restart": {true, 0, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := plain(t, tc.restarted, func(c *bgp.Config) { c.RestartTime = tc.time })
			_, open := call(t, c)
			got := "none"
			for _, o := range open.OptParams {
				for _, one := range o.(*packet.OptionParameterCapability).Capability {
					if gr, ok := one.(*packet.CapGracefulRestart); ok {
						var families []packet.CapGracefulRestartTuple
						for _, f := range gr.Tuples {
							families = append(families, *f)
						}
						got = fmt.Sprintf("time %d flags %d families %v", gr.Time, gr.Flags, families)
					}
				}
			}
			if got != tc.want {
				t.Errorf("graceful restart capability: %s, want %s", got, tc.want)
			}
		})
	}
}

// TestEndOfRIBFollowsOurPaths also when another neighbour is not there, and
// when we restarted.
func TestEndOfRIBFollowsOurPaths(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for peer, want := range map[uint32]string{
			neighbourAS: "next hop 127.9.0.1, AS path [64512], local preference 0, 3 attributes",
			speakerAS:   "next hop 127.9.0.1, AS path [], local preference 100, 4 attributes",
		} {
			t.Run(fmt.Sprintf("restarted %t, AS %d", restarted, peer), func(t *testing.T) {
				_, c := plain(t, restarted, func(c *bgp.Config) { c.Peers[0].ASN = peer })
				w, _ := call(t, c)
				w.open(uint16(peer), 90, modern(peer)...)
				told := map[string]string{}
				for {
					m, err := w.read()
					if err != nil {
						t.Fatal(err)
					}
					u, ok := m.Body.(*packet.BGPUpdate)
					if !ok {
						continue
					}
					if end, _ := u.IsEndOfRib(); end {
						break
					}
					for _, p := range u.NLRI {
						told[p.NLRI.String()] = describe(u)
					}
				}
				if fmt.Sprint(told) != fmt.Sprint(map[string]string{block.Prefix.String(): want, pod.Prefix.String(): want}) {
					t.Errorf("told before End-of-RIB: %v", told)
				}
			})
		}
	}
}

func describe(u *packet.BGPUpdate) string {
	var nextHop netip.Addr
	var path []uint32
	var pref uint32
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *packet.PathAttributeNextHop:
			nextHop = a.Value
		case *packet.PathAttributeAsPath:
			for _, s := range a.Value {
				path = append(path, s.GetAS()...)
			}
		case *packet.PathAttributeLocalPref:
			pref = a.Value
		}
	}
	return fmt.Sprintf("next hop %s, AS path %v, local preference %d, %d attributes", nextHop, path, pref, len(u.PathAttributes))
}

func lastError(t *testing.T, s *gobgp.Speaker, peer string) string {
	t.Helper()
	all, err := s.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s bgp.Session) bool { return s.Peer == peer })
	if i < 0 {
		t.Fatalf("no session of %s in %+v", peer, all)
	}
	return all[i].LastError
}

func TestReasonsInWords(t *testing.T) {
	notification := func(code, subcode uint8) func(*wire) {
		return func(w *wire) {
			w.open(neighbourAS, 90, modern(neighbourAS)...)
			w.send(packet.NewBGPNotificationMessage(code, subcode, nil), nil)
		}
	}
	for name, tc := range map[string]struct {
		change func(*bgp.Config)
		play   func(*wire)
		want   string
	}{
		"other AS": {
			play: func(w *wire) { w.open(65009, 90, modern(65009)...) },
			want: "AS mismatch: the AS number in the OPEN is not the configured one",
		},
		"silence": {
			play: func(w *wire) { w.open(neighbourAS, 3, packet.NewCapMultiProtocol(packet.RF_IPv4_UC)) },
			want: "hold timer expired",
		},
		"shutdown": {
			play: notification(packet.BGP_ERROR_CEASE, packet.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN),
			want: "the neighbour says: administrative shutdown",
		},
		"nobody listens": {
			change: func(c *bgp.Config) { c.Peers[0].Passive, c.Peers[0].Port = false, 1 },
			want:   "connection refused: nobody listens on the neighbour's port",
		},
		"wrong local address": {
			change: func(c *bgp.Config) {
				c.Peers[0].Passive, c.Peers[0].LocalAddr = false, netip.MustParseAddr("198.18.0.1")
			},
			want: "the local address is not an address of this node",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := plain(t, false, tc.change)
			if tc.play != nil {
				w, _ := call(t, c)
				tc.play(w)
				go io.Copy(io.Discard, w)
			}
			eventually(t, "last error", tc.want, func() any { return lastError(t, s, "bgppeer/played") })
		})
	}
}

// TestSurvivesMalformedUpdate: this one ended the process of GoBGP v3.
func TestSurvivesMalformedUpdate(t *testing.T) {
	s, c := plain(t, false, nil)
	var mu sync.Mutex // of learned
	var learned []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Learned(ctx, func(l []bgp.Learned, _ bool) {
			mu.Lock()
			defer mu.Unlock()
			for _, one := range l {
				learned = append(learned, one.Prefix.String())
			}
		})
	}()
	defer func() { cancel(); <-done }()

	old := []packet.ParameterCapabilityInterface{packet.NewCapMultiProtocol(packet.RF_IPv4_UC)} // 2-byte AS numbers
	w, _ := call(t, c)
	w.open(neighbourAS, 90, old...)
	attrs := []byte{
		0xc0, 17, 10, 2, 2, 0, 1, 0, 1, 0, 1, 0, 2, // AS4_PATH 65537 65538
		0x40, 1, 1, 0, // ORIGIN
		0x40, 3, 4, 127, 9, 0, 2, // NEXT_HOP
		0x40, 2, 4, 2, 1, 0xfd, 0xe9, // AS_PATH 65001
	}
	body := append([]byte{0, 0, 0, byte(len(attrs))}, attrs...)
	body = append(body, 24, 203, 0, 113)
	w.sendBytes(message(packet.BGP_MSG_UPDATE, body))
	w.Close()

	w, _ = call(t, c)
	w.open(neighbourAS, 90, old...)
	nextHop, err := packet.NewPathAttributeNextHop(neighbourAddr)
	if err != nil {
		t.Fatal(err)
	}
	nlri, err := packet.NewIPAddrPrefix(netip.MustParsePrefix("203.0.113.128/25"))
	if err != nil {
		t.Fatal(err)
	}
	w.send(packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(0),
		packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAsPathParam(2, []uint16{neighbourAS})}),
		nextHop,
	}, []packet.PathNLRI{{NLRI: nlri}}), nil)
	eventually(t, "a good path afterwards", true, func() any {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(learned, "203.0.113.128/25")
	})
}

func message(kind byte, body []byte) []byte {
	n := packet.BGP_HEADER_LENGTH + len(body)
	m := slices.Repeat([]byte{0xff}, 16)
	m = append(m, byte(n>>8), byte(n), kind)
	return append(m, body...)
}
