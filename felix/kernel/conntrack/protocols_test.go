package conntrack

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func TestItem28ConnectionsBehindAServiceAreJudgedByTheirPod(t *testing.T) {
	l := newLab(t, true)
	f := l.service("10.96.0.1")
	b := netip.PrefixFrom(l.sites["b"].addrs[0], 32)
	rule := ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstNets: []netip.Prefix{b}, DstPorts: []ir.PortRange{{First: 8080, Last: 8080}}}
	id := ir.ProgramID{Policy: policy.Key{Name: "p"}, Direction: policy.Egress}
	change := func(r ir.Rule) {
		l.apply(desired.Delta{
			Programs:  map[ir.ProgramID]*ir.Program{id: {ID: id, Rules: []ir.Rule{r}}},
			Endpoints: map[string]*desired.Endpoint{"kora": l.endpoint("a", allDenied, ir.Chain{Tiers: []ir.Tier{{Programs: []ir.ProgramID{id}}}})},
		})
	}
	change(rule)
	if !f.asks() || !f.tells() {
		t.Error("policy allows the pod behind the service, and its answers need no rule")
	}
	rule.DstPorts[0] = ir.PortRange{First: 80, Last: 80} // the service's port is nobody's
	change(rule)
	if f.tells() || f.asks() {
		t.Error("policy denies the pod behind the service")
	}
}

// TestItem29SCTPIsTracked: an association that begins is a connection, which lives
// and is cut like others.
func TestItem29SCTPIsTracked(t *testing.T) {
	l := newLab(t, true)
	a, b := l.sites["a"], l.sites["b"]
	var ear net.PacketConn
	b.ns.Do(func() {
		var err error
		if ear, err = net.ListenPacket("ip4:132", b.addrs[0].String()); err != nil {
			t.Fatal(err)
		}
	})
	defer ear.Close()
	begin := func() (arrived bool) {
		a.ns.Do(func() {
			c, err := net.Dial("ip4:132", b.addrs[0].String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(initChunk(1000, 2000)); err != nil {
				t.Fatal(err)
			}
		})
		if err := ear.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _, err := ear.ReadFrom(make([]byte, 100))
		return err == nil
	}
	if !begin() {
		t.Fatal("an allowed association does not begin")
	}
	if all := l.entries(b.addrs[0]); len(all) != 1 || all[0].orig.protocol != policy.SCTP || all[0].orig.dstPort != 2000 {
		t.Fatalf("connections are %+v", all)
	}
	l.want("b", allDenied, allAllowed)
	if left := l.entries(b.addrs[0]); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
	if begin() {
		t.Error("a denied association begins")
	}
}

// initChunk is the packet that begins an association.
func initChunk(src, dst uint16) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, src), dst)
	b = append(b, make([]byte, 8)...)                 // tag 0, checksum
	b = append(b, 1, 0, 0, 20)                        // INIT, its length
	b = be.AppendUint32(be.AppendUint32(b, 7), 65536) // tag of the answers, window
	b = be.AppendUint32(append(b, 0, 1, 0, 1), 7)     // streams, first number
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
