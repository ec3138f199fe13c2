package addresses

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/cniserver/audit"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// blockOf makes a block of node "a", or of the one that holders name as node=.
func blockOf(cidr, node string, holders ...string) koratv1.Block {
	p := netip.MustParsePrefix(cidr)
	b := koratv1.Block{
		ObjectMeta: metav1.ObjectMeta{Name: koratv1.BlockName(p)},
		Spec:       koratv1.BlockSpec{CIDR: koratv1.CIDR(cidr), Pool: "p", Node: node, NodeUID: "uid-" + node, JournalID: "journal-" + node},
	}
	for _, h := range holders {
		a, pod, _ := strings.Cut(h, "=")
		b.Status.Addresses = append(b.Status.Addresses, koratv1.BlockAddress{Address: a, Pod: "ns/" + pod})
	}
	b.Status.Allocated = int32(len(holders))
	b.Status.Free = int32(1<<(p.Addr().BitLen()-p.Bits()) - len(holders))
	return b
}

func podOf(name, node, ip string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	return p
}

// sound are books that agree: node b has a part of a's block.
func sound() *Books {
	whole := blockOf("10.0.0.0/30", "a", "10.0.0.1=web")
	whole.Status.Free, whole.Status.Given = 2, 1
	p := koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: koratv1.IPPoolSpec{CIDR: "10.0.0.0/24"}}
	p.Status = koratv1.IPPoolStatus{Capacity: 256, Allocated: 2, Used: "2/256", Blocks: 1}
	host := podOf("agent", "a", "192.168.0.1")
	host.Spec.HostNetwork = true
	done := podOf("done", "a", "10.0.0.1")
	done.Status.Phase = corev1.PodSucceeded
	return &Books{
		Pools: []koratv1.IPPool{p}, Nodes: map[string]string{"a": "uid-a", "b": "uid-b"},
		Blocks: []koratv1.Block{whole, blockOf("10.0.0.3/32", "b", "10.0.0.3=db")},
		Pods:   []corev1.Pod{podOf("web", "a", "10.0.0.1"), podOf("db", "b", "10.0.0.3"), host, done},
		Agents: []audit.Node{{
			Node: "a", Journal: "journal-a", Blocks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/30")},
			Attachments: []audit.Attachment{{Pod: "ns/web", Sandbox: "s", Interface: "kor1", Addrs: []netip.Addr{addr("10.0.0.1")}}},
			Interfaces:  []audit.Interface{{Name: "kor1", Addrs: []netip.Addr{addr("10.0.0.1")}}},
		}},
	}
}

func TestBooksThatAgree(t *testing.T) {
	if found := sound().Check(); len(found) > 0 {
		t.Errorf("%v", found)
	}
}

func TestWhateverIsWrongIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Books)
		kind  string
		says  string
	}{
		"two pods with one address": {func(b *Books) { b.Pods = append(b.Pods, podOf("copy", "a", "10.0.0.1")) }, "Doubled", "10.0.0.1 is the address of pod ns/copy and of pod ns/web"},
		"two blocks with one address": {func(b *Books) {
			b.Blocks[0] = blockOf("10.0.0.0/30", "a", "10.0.0.1=web", "10.0.0.3=old")
		}, "Doubled", "10.0.0.3 is of pod ns/db in one block and of pod ns/old in another"},
		"an address of a part that was given": {func(b *Books) {
			b.Blocks[0] = blockOf("10.0.0.0/30", "a", "10.0.0.1=web", "10.0.0.3=old")
		}, "Foreign", "the address belongs to block 10-0-0-3-32"},
		"a pod that nobody recorded":           {func(b *Books) { b.Pods = append(b.Pods, podOf("new", "a", "10.0.0.2")) }, "Unrecorded", "block 10-0-0-0-30 does not know it"},
		"a pod outside of all blocks":          {func(b *Books) { b.Pods = append(b.Pods, podOf("new", "a", "10.0.0.77")) }, "Unrecorded", "which is in no block"},
		"a pod on another node than its block": {func(b *Books) { b.Pods[0].Spec.NodeName = "b" }, "Foreign", "which is of node a"},
		"a leaked address":                     {func(b *Books) { b.Pods = b.Pods[1:] }, "Leaked", "holds 10.0.0.1 for pod ns/web"},
		"a block of a node that is gone":       {func(b *Books) { delete(b.Nodes, "b") }, "Orphaned", "which is gone"},
		"a block of a node made anew":          {func(b *Books) { b.Nodes["b"] = "other" }, "Orphaned", "which is gone"},
		"counts that do not add up":            {func(b *Books) { b.Blocks[0].Status.Free = 1 }, "Counts", "counts 3 addresses, and has 4"},
		"pools that overlap": {func(b *Books) {
			b.Pools = append(b.Pools, koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: koratv1.IPPoolSpec{CIDR: "10.0.0.128/25"}})
		}, "Overlap", "pools p and q overlap"},
		"a block of no pool":      {func(b *Books) { b.Blocks[1].Spec.Pool = "gone" }, "Unaccepted", "its pool gone"},
		"a lost interface":        {func(b *Books) { b.Agents[0].Interfaces = nil }, "Node", "no interface kor1"},
		"a lost route":            {func(b *Books) { b.Agents[0].Interfaces[0].Addrs = nil }, "Node", "no route leads to it"},
		"an unknown interface":    {func(b *Books) { b.Agents[0].Attachments = nil }, "Node", "the journal does not know it"},
		"an unpublished address":  {func(b *Books) { b.Blocks[0] = blockOf("10.0.0.0/30", "a") }, "Node", "in its journal, and the API has"},
		"a block without journal": {func(b *Books) { b.Agents[0].Blocks = nil }, "Node", "whose journal does not know it"},
		"another journal":         {func(b *Books) { b.Agents[0].Journal = "j" }, "Node", "and node a has journal j"},
	} {
		t.Run(name, func(t *testing.T) {
			b := sound()
			c.spoil(b)
			for _, p := range b.Check() {
				if p.Kind == c.kind && strings.Contains(p.Message, c.says) {
					return
				}
			}
			t.Errorf("got %v, want %s ... %s", b.Check(), c.kind, c.says)
		})
	}
}

func TestOnlyWhatStaysWrongIsTold(t *testing.T) {
	a, b, c := Problem{"Leaked", "a"}, Problem{"Leaked", "b"}, Problem{"Leaked", "c"}
	if got := Both([]Problem{a, b}, []Problem{b, c}); len(got) != 1 || got[0] != b {
		t.Errorf("got %v", got)
	}
}

func TestWhoHasAnAddress(t *testing.T) {
	b := sound()
	b.Blocks[0].Status.Kept = []koratv1.BlockAddress{{Address: "10.0.0.2", Pod: "ns/db-0"}}
	b.Blocks[0].Status.Quarantined = 1
	b.Reservations = []koratv1.IPReservation{{Spec: koratv1.IPReservationSpec{CIDRs: []koratv1.CIDR{"10.0.0.0/32"}}}}
	for a, want := range map[string]string{
		"10.0.0.0":  "10.0.0.0: reserved, node a, block 10.0.0.0/30, pool p\n",
		"10.0.0.1":  "10.0.0.1: held, pod ns/web, node a, block 10.0.0.0/30, pool p\n",
		"10.0.0.2":  "10.0.0.2: kept, pod ns/db-0, node a, block 10.0.0.0/30, pool p\n",
		"10.0.0.3":  "10.0.0.3: held, pod ns/db, node b, block 10.0.0.3/32, pool p\n",
		"10.0.0.99": "10.0.0.99: unclaimed, pool p\n",
		"192.0.2.1": "192.0.2.1: foreign, in no pool\n",
	} {
		if got := b.WhoHas(addr(a)).Text(); got != want {
			t.Errorf("got %swant %s", got, want)
		}
	}
}

func TestPictures(t *testing.T) {
	b := sound()
	show := b.Show()
	for _, want := range []string{"p      10.0.0.0/24   1        2/256", "10.0.0.3/32   b      p      1      0      0         0          0       0      10.0.0.0/30"} {
		if !strings.Contains(show, want) {
			t.Errorf("no %q in\n%s", want, show)
		}
	}
	bars := b.Bars()
	for _, want := range []string{
		"[#" + strings.Repeat(".", 39) + "] 2/256",
		"[##########==========....................] 1/4",
		"[" + strings.Repeat("#", 40) + "] 1/1",
	} {
		if !strings.Contains(bars, want) {
			t.Errorf("no %q in\n%s", want, bars)
		}
	}
}

func TestOnlyBlocksOfNodesThatAreGoneCanBeReleased(t *testing.T) {
	gone := func(b *Books) { delete(b.Nodes, "b") }
	for name, c := range map[string]struct {
		spoil func(*Books)
		what  string
		says  string
	}{
		"the node is there":      {func(*Books) {}, "10.0.0.3/32", "which is there"},
		"a pod has an address":   {gone, "10.0.0.3/32", "pod ns/db has 10.0.0.3"},
		"others have a part":     {func(b *Books) { delete(b.Nodes, "a") }, "10.0.0.0/30", "node b has a part of it"},
		"no such block":          {gone, "10.0.0.0/29", "there is no block"},
		"an address of no block": {gone, "10.0.0.99/32", "in no block"},
		"by its range":           {func(b *Books) { gone(b); b.Pods = nil }, "10.0.0.3/32", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := sound()
			c.spoil(b)
			x, err := b.Releasable(netip.MustParsePrefix(c.what))
			if c.says == "" && (err != nil || x.Spec.CIDR != "10.0.0.3/32") || c.says != "" && !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("got %v, %v", x, err)
			}
		})
	}
}
