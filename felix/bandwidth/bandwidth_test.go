package bandwidth

import (
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// node is a namespace with a pod behind kor1 and a Reconciler.
type node struct {
	*kerneltest.Namespace
	t   *testing.T
	pod *kerneltest.Namespace
	r   *Reconciler
}

func newNode(t *testing.T) *node {
	n := &node{Namespace: kerneltest.New(t), t: t}
	n.start()
	n.pod = kerneltest.Pod(n.Namespace, "kor1")
	n.Run("ip", "addr", "add", "10.0.0.254/24", "dev", "kor1")
	n.pod.Run("ip", "addr", "add", "10.0.0.1/24", "dev", "eth0")
	return n
}

// start begins a life of the agent.
func (n *node) start() {
	n.t.Helper()
	n.Do(func() {
		var err error
		if n.r, err = New(); err != nil {
			n.t.Fatal(err)
		}
	})
	n.t.Cleanup(func() { n.r.Close() })
}

func (n *node) apply(d desired.Delta) error {
	n.r.Want(d)
	return n.r.Apply(n.t.Context())
}

func limited(in, out uint64) desired.Delta {
	return desired.Delta{Complete: true, Endpoints: map[string]*desired.Endpoint{
		"kor1": {Interface: "kor1", Generation: 1, Rates: desired.Rates{Ingress: in, Egress: out}},
	}}
}

// allowed is how many bits a limit lets pass in a time: its own, what may come at
// once, and some more for clocks that differ.
func allowed(limit uint64, took time.Duration) float64 {
	return 1.05 * (float64(limit)*(took.Seconds()+1) + leastBurst*8)
}

// send sends for two seconds, as fast as the kernel takes it, and returns how many
// bits arrive and how many were allowed.
func send(t *testing.T, from, to *kerneltest.Namespace, at string, limit uint64) (got, most float64) {
	t.Helper()
	var in net.PacketConn
	var out net.Conn
	to.Do(func() {
		var err error
		if in, err = net.ListenPacket("udp", at); err != nil {
			t.Fatal(err)
		}
	})
	defer in.Close()
	from.Do(func() {
		var err error
		if out, err = net.Dial("udp", at); err != nil {
			t.Fatal(err)
		}
	})
	began := time.Now()
	_ = in.SetReadDeadline(began.Add(2 * time.Second))
	_ = out.SetWriteDeadline(began.Add(2 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for b := make([]byte, 1000); time.Since(began) < 2*time.Second; {
			_, _ = out.Write(b) // what is dropped on the way out is an error
		}
	}()
	for b := make([]byte, 2000); ; {
		n, _, err := in.ReadFrom(b)
		if err != nil {
			break
		}
		got += float64(n * 8)
	}
	took := time.Since(began)
	<-sent
	out.Close()
	return got, allowed(limit, took)
}

func TestPodsGetAndSendNoMoreThanTheirLimit(t *testing.T) {
	n := newNode(t)
	const limit = 500_000
	if err := n.apply(limited(limit, 2*limit)); err != nil {
		t.Fatal(err)
	}
	if closed := n.r.Closed(); len(closed) > 0 {
		t.Fatalf("closed: %v", closed)
	}
	if got, most := send(t, n.Namespace, n.pod, "10.0.0.1:7777", limit); got > most {
		t.Errorf("the pod gets %.0f bits, its limit lets %.0f pass", got, most)
	}
	if got, most := send(t, n.pod, n.Namespace, "10.0.0.254:7777", 2*limit); got > most {
		t.Errorf("the pod sends %.0f bits, its limit lets %.0f pass", got, most)
	}
	if err := n.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": nil}}); err != nil {
		t.Fatal(err)
	}
	if list := n.Run("nft", "list", "ruleset"); strings.Contains(list, "kor1") || strings.Contains(list, "hook") {
		t.Errorf("the pod has gone, and there is\n%s", list)
	}
}

func TestANodeWithoutLimitsHasNoTable(t *testing.T) {
	n := newNode(t)
	if err := n.apply(limited(0, 0)); err != nil {
		t.Fatal(err)
	}
	if list := n.Run("nft", "list", "ruleset"); list != "" {
		t.Errorf("nobody has a limit, and there is\n%s", list)
	}
}

func TestLimitsAreMendedAndOutliveARestart(t *testing.T) {
	n := newNode(t)
	if err := n.apply(limited(0, 1_000_000)); err != nil {
		t.Fatal(err)
	}
	want := n.Run("nft", "list", "ruleset")
	n.Run("nft", "delete", "table", "inet", TableName)
	for range 2 {
		if err := n.r.Resync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := n.Run("nft", "list", "ruleset"); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		n.start()
		n.r.Want(limited(0, 1_000_000))
	}
}

func TestAnInterfaceThatIsNotThereKeepsItsPodClosedUntilItComes(t *testing.T) {
	n := newNode(t)
	d := limited(1_000_000, 0)
	d.Endpoints["kor2"] = &desired.Endpoint{Interface: "kor2", Rates: desired.Rates{Ingress: 1_000_000}}
	if err := n.apply(d); err != nil {
		t.Fatal(err)
	}
	closed := n.r.Closed()
	if _, shut := closed["kor2"]; !shut && !n.r.unshaped || closed["kor1"] != nil {
		t.Fatalf("closed: %v", closed)
	}
	kerneltest.Pod(n.Namespace, "kor2")
	n.r.LinkChanged("kor2")
	if err := n.r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if closed := n.r.Closed(); len(closed) > 0 {
		t.Errorf("closed: %v", closed)
	}
}

// TestTheTokenBucketIsAskedForAsTheKernelWantsIt compares with what tc of iproute2
// sends for `tc qdisc replace dev X root handle 6b6f: tbf rate 8mbit burst 256kb
// limit 306kb`, but for its rate table, which kernels since 3.9 do not read.
func TestTheTokenBucketIsAskedForAsTheKernelWantsIt(t *testing.T) {
	var m nlsock.Messages
	tokenBucket(m.Begin(0, 0, header(7, ours, atRoot)), 8_000_000)
	got := hex.EncodeToString(m.Bytes()[16:])
	want := strings.Join([]string{
		"00000000", "07000000", "00006f6b", "ffffffff", "00000000", // struct tcmsg
		"08000100", "74626600", // TCA_KIND tbf
		"34000200",                         // TCA_OPTIONS
		"28000100",                         // TCA_TBF_PARMS
		"00010000", "00000000", "40420f00", // 1,000,000 bytes a second
		"00000000", "00000000", "00000000", // no peak rate
		"50c30400", "00000000", "00000000", // a queue of 312,144 bytes
		"08000600", "00000400", // TCA_TBF_BURST: 262,144 bytes
	}, "")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
