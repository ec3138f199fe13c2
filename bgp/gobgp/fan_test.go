package gobgp_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// fanEnv makes the test binary a fan: many neighbours in one process, which call
// one router and say and count prefixes. Its value is the fan as JSON.
const fanEnv = "KORAT_TEST_FAN"

// fan is what the neighbours do.
type fan struct {
	Router   netip.Addr // on port 179
	ASN      uint16     // theirs, all in the router's AS if it is the same
	Peers    int        // with addresses from fanAddr(0)
	Prefixes int        // each says
	Expect   int        // each waits to hear, 0: does not
}

// fanTold is what a fan process says, a line each.
type fanTold struct {
	Err   string
	Up    bool          // all sessions are up and all was said
	Heard time.Duration // since the first call, when everybody had heard Expect
}

var fanNet = netip.MustParsePrefix("10.10.0.0/17")

func fanAddr(i int) netip.Addr {
	a := fanNet.Addr().As4()
	i++
	a[2], a[3] = a[2]+byte(i>>8), byte(i)
	return netip.AddrFrom4(a)
}

// fanPrefix is the kth that neighbour i says.
func fanPrefix(i, k, each int) netip.Prefix {
	a := [4]byte{20}
	n := i*each + k
	a[1], a[2], a[3] = byte(n>>16), byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom4(a), 32)
}

func (f fan) run(out io.Writer) error {
	enc := json.NewEncoder(out)
	start := time.Now()
	var up, heard sync.WaitGroup
	errs := make(chan error, f.Peers)
	calls := make(chan struct{}, atOnce)
	up.Add(f.Peers)
	heard.Add(f.Peers)
	for i := range f.Peers {
		go func() {
			begun := false
			err := f.peer(i, calls, &begun, &up, &heard)
			for n := 0; err != nil && !begun && n < 50; n++ { // the router may not have begun with this peer
				<-time.After(100 * time.Millisecond)
				err = f.peer(i, calls, &begun, &up, &heard)
			}
			if err != nil {
				errs <- fmt.Errorf("neighbour %s: %w", fanAddr(i), err)
			}
		}()
	}
	done := make(chan struct{})
	go func() {
		up.Wait()
		enc.Encode(fanTold{Up: true})
		heard.Wait()
		close(done)
	}()
	select {
	case err := <-errs:
		return errors.Join(err, enc.Encode(fanTold{Err: err.Error()}))
	case <-done:
	}
	if err := enc.Encode(fanTold{Heard: time.Since(start)}); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin) // sessions stay until the test ends
	return nil
}

// atOnce is how many neighbours call at once. BIRD has room for 8 calls that it did
// not take yet: more of them would measure how long TCP waits before it calls again.
const atOnce = 4

// peer is the session of neighbour i; calls is filled by those who call, begun
// tells that it came up.
func (f fan) peer(i int, calls chan struct{}, begun *bool, up, heard *sync.WaitGroup) error {
	calls <- struct{}{}
	answered := sync.OnceFunc(func() { <-calls })
	defer answered()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: fanAddr(i).AsSlice()}, Timeout: 30 * time.Second}
	conn, err := d.Dial("tcp", netip.AddrPortFrom(f.Router, 179).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	open, err := packet.NewBGPOpenMessage(f.ASN, 240, fanAddr(i), []packet.OptionParameterInterface{
		packet.NewOptionParameterCapability([]packet.ParameterCapabilityInterface{
			packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapFourOctetASNumber(uint32(f.ASN)),
			packet.NewCapGracefulRestart(false, true, 60, nil),
		}),
	})
	if err != nil {
		return err
	}
	first, err := open.Serialize()
	if err != nil {
		return err
	}
	say, err := f.updates(i)
	if err != nil {
		return err
	}
	keepalive := message(packet.BGP_MSG_KEEPALIVE, nil)
	if _, err := conn.Write(append(first, keepalive...)); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 1<<12)
	var n int // prefixes heard, each once
	known := make([]bool, f.Peers*f.Prefixes)
	for header := make([]byte, packet.BGP_HEADER_LENGTH); ; {
		if _, err := io.ReadFull(r, header); err != nil {
			return err
		}
		answered()
		body := make([]byte, int(binary.BigEndian.Uint16(header[16:]))-len(header))
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		switch header[18] {
		case packet.BGP_MSG_NOTIFICATION:
			return fmt.Errorf("notification %d/%d", body[0], body[1])
		case packet.BGP_MSG_KEEPALIVE:
			if say != nil {
				if _, err := conn.Write(say); err != nil {
					return err
				}
				say, *begun = nil, true
				up.Done()
				if f.Expect == 0 {
					heard.Done()
				}
			}
		case packet.BGP_MSG_UPDATE:
			before := n
			for _, k := range announced(body) {
				if k < len(known) && !known[k] {
					known[k] = true
					n++
				}
			}
			if f.Expect > 0 && before < f.Expect && n >= f.Expect {
				heard.Done()
			}
		}
	}
}

// updates is all that neighbour i says, with End-of-RIB.
func (f fan) updates(i int) ([]byte, error) {
	nextHop, err := packet.NewPathAttributeNextHop(fanAddr(i))
	if err != nil {
		return nil, err
	}
	var path []packet.AsPathParamInterface
	attrs := []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0), nil, nextHop}
	if f.ASN == fanRouterAS {
		attrs = append(attrs, packet.NewPathAttributeLocalPref(100))
	} else {
		path = []packet.AsPathParamInterface{packet.NewAs4PathParam(2, []uint32{uint32(f.ASN)})}
	}
	attrs[1] = packet.NewPathAttributeAsPath(path)
	out := []byte{}
	const perMessage = 500
	for k := 0; k < f.Prefixes; k += perMessage {
		var nlri []packet.PathNLRI
		for j := k; j < min(k+perMessage, f.Prefixes); j++ {
			p, err := packet.NewIPAddrPrefix(fanPrefix(i, j, f.Prefixes))
			if err != nil {
				return nil, err
			}
			nlri = append(nlri, packet.PathNLRI{NLRI: p})
		}
		b, err := packet.NewBGPUpdateMessage(nil, attrs, nlri).Serialize()
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return append(out, message(packet.BGP_MSG_UPDATE, make([]byte, 4))...), nil
}

// announced returns the numbers of the prefixes that an UPDATE announces.
func announced(body []byte) []int {
	withdrawn := int(binary.BigEndian.Uint16(body))
	attrs := int(binary.BigEndian.Uint16(body[2+withdrawn:]))
	var out []int
	for b := body[4+withdrawn+attrs:]; len(b) > 0; {
		n := 1 + (int(b[0])+7)/8
		if n == 5 {
			out = append(out, int(b[2])<<16|int(b[3])<<8|int(b[4]))
		}
		b = b[n:]
	}
	return out
}

const fanRouterAS = 64512

// fanProcess is a fan in a process of its own.
type fanProcess struct {
	t   testing.TB
	cmd *exec.Cmd
	dec *json.Decoder
}

// routerAndFan makes the namespaces of a router with address 10.10.255.1, and of
// a fan on the same link.
func routerAndFan(t testing.TB) (router, neighbours *kerneltest.Namespace) {
	t.Helper()
	router, neighbours = kerneltest.New(t), kerneltest.New(t)
	kerneltest.Veth(router, "fan", neighbours, "fan")
	router.Run("ip", "addr", "add", "10.10.255.1/16", "dev", "fan")
	neighbours.Run("ip", "addr", "add", "10.10.255.2/16", "dev", "fan")
	neighbours.Run("ip", "route", "add", "local", fanNet.String(), "dev", "lo")
	router.Up("fan")
	neighbours.Up("fan")
	// One entry in the kernel's table of neighbours: it has room for 1,024 on all links.
	router.Run("ip", "route", "add", fanNet.String(), "via", "10.10.255.2")
	return router, neighbours
}

func startFan(t testing.TB, ns *kerneltest.Namespace, f fan) *fanProcess {
	t.Helper()
	spec, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	p := &fanProcess{t: t, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), fanEnv+"="+string(spec))
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.dec = json.NewDecoder(out)
	ns.Do(func() {
		if err := p.cmd.Start(); err != nil {
			t.Fatalf("start fan: %v", err)
		}
	})
	t.Cleanup(func() {
		in.Close()
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

// next waits for what the fan says next.
func (p *fanProcess) next() fanTold {
	p.t.Helper()
	var told fanTold
	if err := p.dec.Decode(&told); err != nil {
		p.t.Fatalf("fan: %v", err)
	}
	if told.Err != "" {
		p.t.Fatalf("fan: %s", told.Err)
	}
	return told
}
