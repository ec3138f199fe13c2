package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// talk is one TCP connection from a pod to a server, over which it asks again and
// again.
type talk struct {
	in    io.Writer
	lines chan string
}

func talking(t *testing.T, from string, to netip.Addr) *talk {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "socat", "-", "TCP:"+netip.AddrPortFrom(to, 80).String())
	inRead, in := io.Pipe()
	outRead, out := io.Pipe()
	cmd.Stdin, cmd.Stdout = inRead, out
	done := make(chan error, 1)
	go func() { done <- cluster.Exec(from, cmd) }()
	c := &talk{in: in, lines: make(chan string, 100)}
	go func() {
		for s := bufio.NewScanner(outRead); s.Scan(); {
			if strings.Contains(s.Text(), " sees ") {
				c.lines <- s.Text()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		in.Close()
		outRead.Close()
		<-done
	})
	if err := c.asks(patient(5 * time.Second)); err != nil {
		t.Fatalf("%s asks %s: %v", from, to, err)
	}
	return c
}

// asks asks once more, and waits for the answer.
func (c *talk) asks(patience time.Duration) error {
	if _, err := io.WriteString(c.in, "GET / HTTP/1.1\r\nHost: server\r\n\r\n"); err != nil {
		return err
	}
	select {
	case <-c.lines:
		return nil
	case <-time.After(patience):
		return errors.New("no answer")
	}
}

// A connection that policy comes to deny lives on, and is cut where connections
// are to be rechecked; one that policy allows lives on everywhere. What is denied
// is told by the node that denied it, with the name of the policy.
func TestItem27ConnectionsWhenPolicyChanges(t *testing.T) {
	namespace(t, cluster, "talks")
	server := start(t, cluster, podOn("a1", "talks", "server", map[string]string{"app": "server"}))
	for name, node := range map[string]string{"friend": "b1", "stranger": "b1", "near": "a1"} {
		start(t, cluster, podOn(node, "talks", name, map[string]string{"app": name}))
		eventually(t, name+" reaches the server", func(context.Context) error { return reach(cluster, "talks/"+name, server) })
	}
	t.Run("by default", func(t *testing.T) {
		stranger := talking(t, "talks/stranger", server)
		onlyFriends(t, server)
		if err := stranger.asks(5 * time.Second); err != nil {
			t.Errorf("a connection that existed was cut: %v", err)
		}
		told(t, "knp/talks/friends")
	})
	eventually(t, "the policy is gone", func(context.Context) error { return reach(cluster, "talks/stranger", server) })
	for _, backend := range []koratv1.Backend{koratv1.BackendIPTables, koratv1.BackendNFTables} {
		t.Run("rechecked over "+string(backend), func(t *testing.T) {
			create(t, cluster, &koratv1.NodeConfiguration{
				ObjectMeta: metav1.ObjectMeta{Name: "recheck"},
				Spec:       koratv1.NodeConfigurationSpec{Backend: backend, EstablishedConnections: koratv1.ConnectionsRecheck},
			})
			enforces(t, "a1", string(backend))
			eventually(t, "a1 rechecks connections", func(ctx context.Context) error {
				out, err := try(ctx, cluster, "a1", "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_loose")
				if err == nil && strings.TrimSpace(out) != "0" {
					err = fmt.Errorf("nf_conntrack_tcp_loose is %s", out)
				}
				return err
			})
			friend := talking(t, "talks/friend", server)
			strangers := map[string]*talk{"stranger": talking(t, "talks/stranger", server), "near": talking(t, "talks/near", server)}
			onlyFriends(t, server)
			for name, c := range strangers {
				eventually(t, "the connection of "+name+" is cut", func(context.Context) error {
					if c.asks(time.Second) == nil {
						return errors.New("it goes on")
					}
					return nil
				})
			}
			if err := friend.asks(5 * time.Second); err != nil {
				t.Errorf("an allowed connection was cut: %v", err)
			}
			told(t, "knp/talks/friends")
		})
		eventually(t, "the policy is gone", func(context.Context) error { return reach(cluster, "talks/stranger", server) })
	}
	enforces(t, "a1", string(koratv1.BackendIPTables))
}

// onlyFriends closes the server for others, until the end of the test.
func onlyFriends(t *testing.T, server netip.Addr) {
	t.Helper()
	create(t, cluster, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "talks", Name: "friends"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "friend"}},
			}}}},
		},
	})
	eventually(t, "the policy is in force", func(context.Context) error {
		if reach(cluster, "talks/stranger", server) == nil {
			return errors.New("the stranger reaches the server")
		}
		return nil
	})
}

// told checks that a1 tells of a drop that no rule of a policy allows.
func told(t *testing.T, policy string) {
	t.Helper()
	tool, err := filepath.Abs(filepath.Join(bin, "koratctl"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a1 tells who denied", func(ctx context.Context) error {
		out, err := try(ctx, cluster, "a1", tool, "drops", "talks/server")
		if err == nil && !strings.Contains(out, "no rule of "+policy+" matches (ingress of talks/server, end of tier default)") {
			err = fmt.Errorf("it tells\n%s", out)
		}
		return err
	})
}
