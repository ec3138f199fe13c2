package whatif

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/selector"
)

func labels(kv ...string) selector.Labels {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return selector.MakeLabels(m)
}

// shop returns three replicas of a web server and a database.
func shop(policies ...*policy.Policy) *eval.Cluster {
	c := &eval.Cluster{Namespaces: map[string]selector.Labels{"shop": nil}, Policies: policies}
	for i, name := range []string{"web-1", "web-2", "web-3", "web-4", "db"} {
		c.Pods = append(c.Pods, eval.Pod{
			Namespace: "shop", Name: name, Node: "n", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})},
			Labels: labels("role", name[:2], "unique", name), Ports: []policy.NamedPort{{Name: "sql", Protocol: policy.TCP, Port: 5432}},
		})
	}
	return c
}

func ingress(subject string, rules ...policy.Rule) *policy.Policy {
	return &policy.Policy{
		Key: policy.Key{Namespace: "shop", Name: "np"}, Tier: policy.DefaultTier, Types: policy.Ingress,
		Subject: policy.Scope{Namespace: "shop", Pods: selector.Equals("role", subject)}, Ingress: rules,
	}
}

func TestWhatChangesIsToldByClasses(t *testing.T) {
	web := policy.Scope{Namespace: "shop", Pods: selector.Equals("role", "we")}
	peers := []policy.Peer{{Scope: &web}}
	for _, c := range []struct {
		name string
		rule policy.Rule
		want string
	}{
		{"a number", policy.Rule{Action: policy.Allow, Peers: peers, Ports: []policy.Port{{Protocol: policy.TCP, First: 80, Last: 80}}}, "TCP 1-79,81-65535, UDP, ICMP, other protocols"},
		{"a name", policy.Rule{Action: policy.Allow, Peers: peers, Ports: []policy.Port{{Name: "sql"}}}, "TCP 1-5431,5433-65535, UDP, ICMP, other protocols"},
		{"the first and the last port", policy.Rule{Action: policy.Allow, Peers: peers, Ports: []policy.Port{{Protocol: policy.UDP, First: 1, Last: 1}, {Protocol: policy.UDP, First: 65535, Last: 65535}}}, "TCP, UDP 2-65534, ICMP, other protocols"},
		{"a message", policy.Rule{Action: policy.Allow, Peers: peers, Ports: []policy.Port{{Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageType, Type: 8}}}}, "TCP, UDP, other messages of ICMP, other protocols"},
		{"a message with its code", policy.Rule{Action: policy.Allow, Peers: peers, Ports: []policy.Port{{Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageTypeAndCode, Type: 3, Code: 4}}}}, "TCP, UDP, ICMP type 3 with other codes, other messages of ICMP, other protocols"},
		{"a protocol", policy.Rule{Action: policy.Allow, Peers: peers, Ports: []policy.Port{{Protocol: 47}}}, "TCP, UDP, ICMP, other protocols"},
		{"nothing", policy.Rule{Action: policy.Allow, Peers: []policy.Peer{}}, "all traffic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Compare(shop(), shop(ingress("db", c.rule)))
			want := fmt.Sprintf("shop/web-1, shop/web-2, 2 more like them -> shop/db, %s: Allow now, then Deny, because no rule of knp/shop/np matches", c.want)
			if len(got) == 0 || !strings.Contains(lines(got), want+"\n") {
				t.Errorf("got:\n%swant:\n%s", lines(got), want)
			}
		})
	}
}

func lines(changes []Change) string {
	text := ""
	for _, c := range changes {
		text += c.String() + "\n"
	}
	return text
}

func TestRangesOutsideAreAskedAbout(t *testing.T) {
	net := policy.Peer{Nets: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}, Except: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}}
	got := lines(Compare(shop(ingress("db")), shop(ingress("db", policy.Rule{Action: policy.Allow, Peers: []policy.Peer{net}}))))
	want := "192.168.0.0, 192.168.255.255 -> shop/db, all traffic: Deny now, then Allow (egress: not a pod; ingress: Allow by knp/shop/np, ingress rule 0)\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAPodMayChangeItsAddressAndItsLabels(t *testing.T) {
	web := policy.Scope{Namespace: "shop", Pods: selector.Equals("role", "we")}
	np := ingress("db", policy.Rule{Action: policy.Allow, Peers: []policy.Peer{{Scope: &web}}})
	before, after := shop(np), shop(np)
	slices.Reverse(after.Pods)
	for i := range after.Pods {
		after.Pods[i].Addrs = before.Pods[i].Addrs // all addresses change hands
	}
	if got := lines(Compare(before, after)); got != "" {
		t.Errorf("other addresses change\n%s", got)
	}
	after.Pod("shop", "web-3").Labels = labels("role", "none")
	got, want := lines(Compare(before, after)), "shop/web-3 -> shop/db, all traffic: Allow now, then Deny, because no rule of knp/shop/np matches\n"
	if got != want {
		t.Errorf("%swant\n%s", got, want)
	}
}

// TestNothingIsLeftOut asks at random about single packets, and looks for the
// change that must tell of those whose verdict differs, and for none otherwise.
func TestNothingIsLeftOut(t *testing.T) {
	different := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		before, after := shop(random(r)...), shop(random(r)...)
		changes := Compare(before, after)
		for range 200 {
			from, to := before.Pods[r.IntN(5)], before.Pods[r.IntN(5)]
			p := eval.Packet{Src: from.Addrs[0], Dst: to.Addrs[0], Protocol: policy.TCP, SrcPort: sourcePort, DstPort: uint16(r.IntN(12) + 1)}
			was, is := before.Verdict(p).Action, after.Verdict(p).Action
			told := ""
			for _, c := range changes {
				if has(c.Sources, from) && has(c.Destinations, to) && covers(c.Traffic, p.DstPort) {
					told += fmt.Sprint(c.Before, c.After)
				}
			}
			want := ""
			if was != is && from.Name != to.Name {
				want = fmt.Sprint(was, is)
				different++
			}
			if told != want && from.Name != to.Name {
				t.Fatalf("cluster %d, %s: %s before, %s after, told is %q in\n%s", seed, p, was, is, told, lines(changes))
			}
		}
	}
	if different < 1000 {
		t.Errorf("%d packets have another verdict: the random clusters say little", different)
	}
}

func has(names []string, p eval.Pod) bool {
	for _, n := range names {
		if n == p.Namespace+"/"+p.Name {
			return true
		}
	}
	return false
}

// covers reads a Change's traffic.
func covers(traffic []string, port uint16) bool {
	for _, t := range traffic {
		if t == "all traffic" || t == "TCP" {
			return true
		}
		ranges, ok := strings.CutPrefix(t, "TCP ")
		for r := range strings.SplitSeq(ranges, ",") {
			var first, last uint16
			if n, _ := fmt.Sscanf(r, "%d-%d", &first, &last); ok && n == 1 {
				last = first
			}
			if ok && first <= port && port <= last {
				return true
			}
		}
	}
	return false
}

func random(r *rand.Rand) []*policy.Policy {
	var out []*policy.Policy
	for i := range r.IntN(3) {
		p := ingress([]string{"we", "db"}[r.IntN(2)])
		p.Key.Name, p.Order = fmt.Sprint("np", i), float64(i)
		for range r.IntN(4) {
			rule := policy.Rule{Action: []policy.Action{policy.Allow, policy.Deny, policy.Pass}[r.IntN(3)]}
			if r.IntN(2) == 0 {
				s := policy.Scope{Namespace: "shop", Pods: selector.Equals("unique", fmt.Sprint("web-", r.IntN(4)+1))}
				rule.Peers = []policy.Peer{{Scope: &s}}
			}
			if r.IntN(2) == 0 {
				first := uint16(r.IntN(10) + 1)
				rule.Ports = []policy.Port{{Protocol: policy.TCP, First: first, Last: first + uint16(r.IntN(3))}}
			}
			p.Ingress = append(p.Ingress, rule)
		}
		out = append(out, p)
	}
	return out
}
