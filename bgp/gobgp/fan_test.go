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
	"sync/atomic"
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
	First    int        // the neighbours are nodes from this one on
	Peers    int        // how many there are
	Prefixes int        // of a node
	Expect   int        // each waits to hear, 0: does not
	// Behind makes the neighbours, in pairs, tell what so many nodes say: the first
	// pair of the nodes from First on, the second of those after these. In the router's
	// AS they are reflectors, in another one routers of racks. 0: each speaks for itself.
	Behind   int
	AddPaths bool // they can several paths a prefix
}

// fanTold is what a fan process says, a line each.
type fanTold struct {
	Err        string
	Up         bool          // all sessions are up and all was said
	Heard      time.Duration // since the first call, when everybody had heard Expect
	Said, Told traffic       // with Heard: from and to the neighbours
}

// traffic is what went over sessions.
type traffic struct{ Messages, Bytes int64 }

func (t *traffic) add(message int) {
	atomic.AddInt64(&t.Messages, 1)
	atomic.AddInt64(&t.Bytes, int64(message))
}

var fanNet = netip.MustParsePrefix("10.10.0.0/17")

func fanAddr(i int) netip.Addr {
	a := fanNet.Addr().As4()
	i++
	a[2], a[3] = a[2]+byte(i>>8), byte(i)
	return netip.AddrFrom4(a)
}

// fanPrefix is the nth of all: node i has those from i*Prefixes on.
func fanPrefix(n int) netip.Prefix {
	a := [4]byte{20}
	a[1], a[2], a[3] = byte(n>>16), byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom4(a), 32)
}

// fanRun is a fan that runs.
type fanRun struct {
	fan
	calls      chan struct{} // filled by those who call
	up, heard  sync.WaitGroup
	said, told traffic
}

func (f fan) run(out io.Writer) error {
	enc := json.NewEncoder(out)
	start := time.Now()
	r := &fanRun{fan: f, calls: make(chan struct{}, atOnce)}
	errs := make(chan error, f.Peers)
	r.up.Add(f.Peers)
	r.heard.Add(f.Peers)
	for i := range f.Peers {
		go func() {
			begun := false
			err := r.peer(i, &begun)
			for n := 0; err != nil && !begun && n < 50; n++ { // the router may not have begun with this peer
				<-time.After(100 * time.Millisecond)
				err = r.peer(i, &begun)
			}
			if err != nil {
				errs <- fmt.Errorf("neighbour %s: %w", fanAddr(f.First+i), err)
			}
		}()
	}
	done := make(chan struct{})
	go func() {
		r.up.Wait()
		enc.Encode(fanTold{Up: true})
		r.heard.Wait()
		close(done)
	}()
	select {
	case err := <-errs:
		return errors.Join(err, enc.Encode(fanTold{Err: err.Error()}))
	case <-done:
	}
	if err := enc.Encode(fanTold{Heard: time.Since(start), Said: r.said, Told: r.told}); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin) // sessions stay until the test ends
	return nil
}

// atOnce is how many neighbours call at once. BIRD has room for 8 calls that it did
// not take yet: more of them would measure how long TCP waits before it calls again.
const atOnce = 4

// peer is the session of neighbour i; begun tells that it came up.
func (f *fanRun) peer(i int, begun *bool) error {
	f.calls <- struct{}{}
	answered := sync.OnceFunc(func() { <-f.calls })
	defer answered()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: fanAddr(f.First + i).AsSlice()}, Timeout: 30 * time.Second}
	conn, err := d.Dial("tcp", netip.AddrPortFrom(f.Router, 179).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	hello, err := f.hello(i)
	if err != nil {
		return err
	}
	say, err := f.updates(i)
	if err != nil {
		return err
	}
	if err := f.say(conn, append(hello, message(packet.BGP_MSG_KEEPALIVE, nil)...)); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 1<<12)
	n, known := 0, map[int]struct{}{} // prefixes heard, each once
	for header := make([]byte, packet.BGP_HEADER_LENGTH); ; {
		if _, err := io.ReadFull(r, header); err != nil {
			return err
		}
		answered()
		body := make([]byte, int(binary.BigEndian.Uint16(header[16:]))-len(header))
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		f.told.add(len(header) + len(body))
		switch header[18] {
		case packet.BGP_MSG_NOTIFICATION:
			return fmt.Errorf("notification %d/%d", body[0], body[1])
		case packet.BGP_MSG_KEEPALIVE:
			if say != nil {
				if err := f.say(conn, say); err != nil {
					return err
				}
				say, *begun = nil, true
				f.up.Done()
				if f.Expect == 0 {
					f.heard.Done()
				}
			}
		case packet.BGP_MSG_UPDATE:
			for _, k := range announced(body, f.AddPaths) {
				known[k] = struct{}{}
			}
			if f.Expect > 0 && n < f.Expect && len(known) >= f.Expect {
				f.heard.Done()
			}
			n = len(known)
		}
	}
}

// say writes whole messages.
func (f *fanRun) say(conn net.Conn, b []byte) error {
	if _, err := conn.Write(b); err != nil {
		return err
	}
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint16(b[16:]))
		f.said.add(n)
		b = b[n:]
	}
	return nil
}

// hello is the OPEN of neighbour i.
func (f fan) hello(i int) ([]byte, error) {
	caps := []packet.ParameterCapabilityInterface{
		packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapFourOctetASNumber(uint32(f.ASN)),
		packet.NewCapGracefulRestart(false, true, 60, nil),
	}
	if f.AddPaths {
		caps = append(caps, packet.NewCapAddPath([]*packet.CapAddPathTuple{packet.NewCapAddPathTuple(packet.RF_IPv4_UC, packet.BGP_ADD_PATH_RECEIVE)}))
	}
	m, err := packet.NewBGPOpenMessage(f.ASN, 240, fanAddr(f.First+i), []packet.OptionParameterInterface{packet.NewOptionParameterCapability(caps)})
	if err != nil {
		return nil, err
	}
	return m.Serialize()
}

// updates is all that neighbour i says, with End-of-RIB.
func (f fan) updates(i int) ([]byte, error) {
	first, n := f.First+i, 1
	if f.Behind > 0 {
		first, n = f.First+i/2*f.Behind, f.Behind
	}
	var out []byte
	rack := 1 // nodes whose routes share their attributes
	if f.ASN != fanRouterAS && f.Behind > 0 {
		rack = fanRack
	}
	for node := first; node < first+n; node += rack {
		attrs, err := f.attributes(f.First+i, node)
		if err != nil {
			return nil, err
		}
		b, err := fanUpdates(attrs, node*f.Prefixes, min(node+rack, first+n)*f.Prefixes)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return append(out, message(packet.BGP_MSG_UPDATE, make([]byte, 4))...), nil
}

// fanRack is how many nodes are in the rack of a router.
const fanRack = 40

// attributes are those of what a neighbour tells of a node.
func (f fan) attributes(who, node int) ([]packet.PathAttributeInterface, error) {
	internal, asns, nextHop := f.ASN == fanRouterAS, []uint32{uint32(f.ASN)}, fanAddr(node)
	if !internal && f.Behind > 0 {
		asns, nextHop = append(asns, uint32(65100+node/fanRack)), fanAddr(who)
	}
	hop, err := packet.NewPathAttributeNextHop(nextHop)
	if err != nil {
		return nil, err
	}
	if !internal {
		path := packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAs4PathParam(2, asns)})
		return []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0), path, hop}, nil
	}
	attrs := []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(0), packet.NewPathAttributeAsPath(nil), hop, packet.NewPathAttributeLocalPref(100),
	}
	if f.Behind == 0 {
		return attrs, nil
	}
	originator, err := packet.NewPathAttributeOriginatorId(fanAddr(node))
	if err != nil {
		return nil, err
	}
	cluster, err := packet.NewPathAttributeClusterList([]netip.Addr{fanAddr(node - node%f.Behind)})
	return append(attrs, originator, cluster), err
}

// fanUpdates are UPDATEs for the prefixes from one number to another.
func fanUpdates(attrs []packet.PathAttributeInterface, from, to int) (out []byte, err error) {
	const perMessage = 500
	for ; from < to; from += perMessage {
		var nlri []packet.PathNLRI
		for k := from; k < min(from+perMessage, to); k++ {
			p, err := packet.NewIPAddrPrefix(fanPrefix(k))
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
	return out, nil
}

// announced returns the numbers of the prefixes that an UPDATE announces, each with
// an identifier where several paths may be told.
func announced(body []byte, addPaths bool) []int {
	withdrawn := int(binary.BigEndian.Uint16(body))
	attrs := int(binary.BigEndian.Uint16(body[2+withdrawn:]))
	var out []int
	for b := body[4+withdrawn+attrs:]; len(b) > 0; {
		if addPaths {
			b = b[4:]
		}
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
