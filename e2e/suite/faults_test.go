package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/e2e/lab/kubelet"
)

// desiredOf is what Korat keeps in a node's kernel, as text: rules without
// their counters, sets, routes.
func desiredOf(t *testing.T, node string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(sh(t, cluster, node, "iptables-save")) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":INPUT") && !strings.HasPrefix(line, ":FORWARD") &&
			!strings.HasPrefix(line, ":OUTPUT") && !strings.HasPrefix(line, ":PREROUTING") {
			b.WriteString(line)
		}
	}
	b.WriteString(sh(t, cluster, node, "ip", "route", "show", "proto", "112"))
	b.WriteString(sh(t, cluster, node, "ipset", "save"))
	return b.String()
}

// settled waits until what is desired of a node holds text and has been the
// same for two seconds: what earlier tests took down goes by and by.
func settled(t *testing.T, node, text string) string {
	t.Helper()
	last, since := "", time.Now()
	eventually(t, node+" settles", func(context.Context) error {
		now := desiredOf(t, node)
		if now != last {
			last, since = now, time.Now()
		}
		if !strings.Contains(now, text) || time.Since(since) < 2*time.Second {
			return fmt.Errorf("it changed %s ago, or has no %q", time.Since(since).Round(time.Millisecond), text)
		}
		return nil
	})
	return last
}

// A killed agent leaves forwarding and sessions as they are, and its successor adopts
// both: no packet is lost and no route is deleted, on the node and on the routers.
func TestKillingAgentsLosesNoPacketAndDeletesNoRoute(t *testing.T) {
	namespace(t, cluster, "kill")
	from, to := start(t, cluster, podOn("a1", "kill", "p", nil)), start(t, cluster, podOn("b1", "kill", "q", nil))
	eventually(t, "path between the racks", func(context.Context) error {
		return errors.Join(reach(cluster, "kill/p", to), reach(cluster, "kill/q", from))
	})
	before := settled(t, "a1", to.String()+" via ")
	stops := map[string]func() []string{}
	for _, where := range []string{"a1", "a2", "b1", "b2", "tor-a", "tor-b"} {
		stops[where] = routeDeletions(t, cluster, where)
	}
	stopPings := pings(t, cluster, "kill/q", from)
	// What the other node of the rack says of the killed one's session.
	others := map[string][2]string{"a1": {"a2", "10.101.0.11"}, "b1": {"b2", "10.102.0.11"}}
	up := func(ctx context.Context, node string) (*metav1.Time, error) {
		return established(ctx, others[node][0], others[node][1])
	}
	since := map[string]*metav1.Time{}
	for node := range others {
		eventually(t, "session with "+node, func(ctx context.Context) (err error) {
			since[node], err = up(ctx, node)
			return err
		})
	}
	for range 2 {
		for node := range others {
			if err := cluster.KillAgent(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			if err := cluster.StartAgent(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
	}
	for node := range others { // the speaker is a process of its own
		if now, err := up(t.Context(), node); err != nil || !now.Equal(since[node]) {
			t.Errorf("session with %s: up since %v, error %v; want it up since %v as before the kills", node, now, err, since[node])
		}
	}
	if sent, lost := stopPings(); lost != 0 {
		t.Errorf("%d of %d packets lost", lost, sent)
	}
	for where, stop := range stops {
		if deleted := stop(); len(deleted) != 0 {
			t.Errorf("%s: routes were deleted: %v", where, deleted)
		}
	}
	if after := desiredOf(t, "a1"); after != before {
		t.Errorf("the successor changed the kernel:\nbefore\n%s\nafter\n%s", before, after)
	}
}

// Pods start and stop on a node that owns a block while the API server is gone.
func TestWithoutTheAPIServerPodsStartAndTrafficFlows(t *testing.T) {
	namespace(t, cluster, "noapi")
	from, to := start(t, cluster, podOn("a1", "noapi", "p", nil)), start(t, cluster, podOn("b1", "noapi", "q", nil))
	eventually(t, "path between the racks", func(context.Context) error { return reach(cluster, "noapi/p", to) })
	if err := cluster.StopAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	started := false
	defer func() {
		if !started {
			_ = cluster.StartAPI(context.Background())
		}
	}()
	stop := pings(t, cluster, "noapi/q", from)

	text, err := yaml.Marshal(podOn("", "noapi", "local", nil))
	if err != nil {
		t.Fatal(err)
	}
	dir := cluster.Machine("a1").Path(kubelet.ManifestsDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "local.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	name := "noapi/local"
	eventually(t, "the pod of the manifest", func(context.Context) error {
		pods, err := cluster.Pods()
		for _, p := range pods {
			if p.Namespace == "noapi" && strings.HasPrefix(p.Name, "local") && len(p.Addresses) > 0 {
				name = p.Namespace + "/" + p.Name
				return nil
			}
		}
		return errors.Join(fmt.Errorf("not running"), err)
	})
	addr := running(t, cluster, name)
	if err := reach(cluster, "noapi/p", addr); err != nil {
		t.Errorf("the new pod cannot be reached on its node: %v", err)
	}
	eventually(t, "the new pod is reached from the other rack", func(context.Context) error { return reach(cluster, "noapi/q", addr) })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod goes with its manifest", func(context.Context) error { return gone(cluster.Pod(name)) })
	if sent, lost := stop(); lost != 0 {
		t.Errorf("%d of %d packets lost while the API server was away", lost, sent)
	}
	started = true
	if err := cluster.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func gone[T any](found T, err error) error {
	if err != nil {
		return nil
	}
	return fmt.Errorf("still there: %v", found)
}

// What others break of ours is mended; what is theirs stays.
func TestForeignEditsAreUndone(t *testing.T) {
	namespace(t, cluster, "edits")
	addr := start(t, cluster, podOn("a1", "edits", "p", nil))
	sh(t, cluster, "a1", "ip", "route", "add", "198.51.100.0/24", "via", "10.101.0.1")
	sh(t, cluster, "a1", "iptables", "-A", "FORWARD", "-s", "198.51.100.1", "-j", "DROP")
	defer sh(t, cluster, "a1", "iptables", "-D", "FORWARD", "-s", "198.51.100.1", "-j", "DROP")
	defer sh(t, cluster, "a1", "ip", "route", "del", "198.51.100.0/24")
	routes := sh(t, cluster, "a1", "ip", "route")

	sh(t, cluster, "a1", "ip", "route", "del", addr.String())
	eventually(t, "the route is back", func(context.Context) error { return reach(cluster, "b1", addr) })
	if now := sh(t, cluster, "a1", "ip", "route"); sorted(now) != sorted(routes) {
		t.Errorf("routes were\n%s and are\n%s", routes, now)
	}
	if rules := sh(t, cluster, "a1", "iptables-save"); !strings.Contains(rules, "198.51.100.1") {
		t.Error("a rule of somebody else is gone")
	}
}

func sorted(lines string) string {
	l := strings.Split(strings.TrimSpace(lines), "\n")
	for i := range l {
		l[i] = strings.TrimSpace(l[i])
	}
	return strings.Join(sortedCopy(l), "\n")
}

// A pod that starts under a policy is never open, not even for its first packet.
func TestItem20APodIsBornWithItsPolicy(t *testing.T) {
	namespace(t, cluster, "born")
	create(t, cluster, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "born", Name: "deny"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	})
	start(t, cluster, podOn("a2", "born", "probe", nil))
	// A node whose watch of policies was lost hears of them again after up to 20 seconds.
	first := start(t, cluster, podOn("a1", "born", "first", nil))
	eventually(t, "the node knows the policy", func(context.Context) error {
		if reach(cluster, "born/probe", first) == nil {
			return errors.New("a pod can be reached although its namespace denies all")
		}
		return nil
	})
	for i := range 5 {
		p := podOn("a1", "born", fmt.Sprint("p", i), nil)
		create(t, cluster, p)
		var addr netip.Addr
		eventually(t, "pod "+p.Name, func(context.Context) error {
			q, err := cluster.Pod("born/" + p.Name)
			if err != nil || len(q.Addresses) == 0 {
				return errors.Join(err, errors.New("no address yet"))
			}
			addr = q.Addresses[0]
			return nil
		})
		for range 5 {
			if reach(cluster, "born/probe", addr) == nil {
				t.Fatalf("pod %s could be reached although its namespace denies all", p.Name)
			}
		}
		if err := reach(cluster, "a1", addr); err != nil {
			t.Errorf("the node cannot reach its own pod: %v", err)
		}
	}
}

// An address of a block that no pod holds ends at its node with an answer; it
// does not circle between node and router.
func TestAnUnusedAddressOfABlockIsUnreachableAtItsNode(t *testing.T) {
	namespace(t, cluster, "unused")
	addr := start(t, cluster, podOn("a1", "unused", "p", nil))
	last := netip.PrefixFrom(addr, 26).Masked().Addr()
	for range 63 {
		last = last.Next()
	}
	eventually(t, "the pod is reached from outside", func(context.Context) error { return reach(cluster, "outside", addr) })
	out, err := try(t.Context(), cluster, "outside", "ping", "-c1", "-W2", last.String())
	if err == nil || !strings.Contains(out, "From 10.101.0.11") || !strings.Contains(out, "Unreachable") {
		t.Errorf("ping to the unused %s: %v\n%s", last, err, out)
	}
}
