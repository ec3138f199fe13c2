package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	corev1 "k8s.io/api/core/v1"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab/matrix"
	"github.com/koratnet/korat/e2e/lab/router"
)

// cluster: nodes, sessions from both sides, and an object that is refused.
func (s *story) cluster(ctx context.Context) {
	s.within(ctx, 30*time.Second, "four nodes in two racks are Ready", s.nodesReady)
	for _, r := range s.lab.Topology.Routers() {
		what := fmt.Sprintf("router %s (%s, AS %d): sessions with the nodes of rack %s and over the spine are established",
			r.Name, strings.ToUpper(string(r.Kind)), r.ASNumber, r.Rack.Name)
		s.within(ctx, 20*time.Second, what, func(ctx context.Context) error {
			states, err := router.Sessions(ctx, s.lab.Machine(r.Name), r)
			if err != nil {
				return err
			}
			for name, state := range states {
				if state != router.Established {
					return fmt.Errorf("%s is %s", name, state)
				}
			}
			return nil
		})
	}
	s.within(ctx, 30*time.Second, "every node reports its sessions, with its router and the mesh of its rack, established", s.sessionsReported)
	s.within(ctx, 30*time.Second, "the controller made a pool for each family, and its status is Ready", s.poolsReady)
	s.within(ctx, 30*time.Second, "the status of each BGPPeer says that all its sessions are established", func(ctx context.Context) error {
		var peers v1.BGPPeerList
		if err := s.lab.List(ctx, &peers); err != nil {
			return err
		}
		for _, p := range peers.Items {
			if p.Status.Sessions != "2/2" {
				return fmt.Errorf("%s has %q", p.Name, p.Status.Sessions)
			}
		}
		return nil
	})
	s.check("a peer with the address 10.101.0.999 is refused, with the field, the value and what is expected", s.badPeerRefused(ctx))
	if text, err := s.kubectl(ctx, "", "get", "ippools,nodenetworks,bgppeers"); err == nil {
		s.show(text)
	}
}

// dataPlane chooses the data plane if the environment says which, on all nodes
// while they run.
func (s *story) dataPlane(ctx context.Context) {
	wanted := os.Getenv("BACKEND")
	if wanted != "" {
		_, err := s.kubectl(ctx, "apiVersion: korat.dev/v1\nkind: NodeConfiguration\nmetadata: {name: default}\nspec: {backend: "+wanted+"}\n", "apply", "-f", "-")
		s.check("kubectl apply of a NodeConfiguration with the backend "+wanted, err)
	}
	told := ""
	s.within(ctx, 30*time.Second, "every node says which data plane enforces its policies", func(ctx context.Context) error {
		nodes, err := s.networks(ctx)
		if err != nil {
			return err
		}
		told = ""
		for _, n := range nodes {
			if n.Status.Backend == "" || wanted != "" && n.Status.Backend != wanted {
				return fmt.Errorf("%s says %q", n.Name, n.Status.Backend)
			}
			told += n.Name + " " + n.Status.Backend + "\n"
		}
		return nil
	})
	s.show(told)
}

func (s *story) poolsReady(ctx context.Context) error {
	var pools v1.IPPoolList
	if err := s.lab.List(ctx, &pools); err != nil {
		return err
	}
	want := 1
	if s.lab.Topology.Pool6.IsValid() {
		want = 2
	}
	if len(pools.Items) != want {
		return fmt.Errorf("there are %d, want %d", len(pools.Items), want)
	}
	for _, p := range pools.Items {
		if !meta.IsStatusConditionTrue(p.Status.Conditions, "Ready") {
			return fmt.Errorf("conditions of %s are %v", p.Name, p.Status.Conditions)
		}
	}
	return nil
}

func (s *story) nodesReady(ctx context.Context) error {
	var nodes corev1.NodeList
	if err := s.lab.List(ctx, &nodes); err != nil {
		return err
	}
	ready := 0
	for _, n := range nodes.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	if ready != 4 {
		return fmt.Errorf("%d of %d are", ready, len(nodes.Items))
	}
	return nil
}

func (s *story) sessionsReported(ctx context.Context) error {
	nodes, err := s.networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if len(n.Status.Sessions) < 2 {
			return fmt.Errorf("%s reports %d sessions", n.Name, len(n.Status.Sessions))
		}
		for _, x := range n.Status.Sessions {
			if x.State != v1.SessionEstablished {
				return fmt.Errorf("%s: %s %s is %s %s", n.Name, x.Peer, x.Address, x.State, x.LastError)
			}
		}
	}
	return nil
}

func (s *story) badPeerRefused(ctx context.Context) error {
	_, err := s.kubectl(ctx, `{"apiVersion":"korat.dev/v1","kind":"BGPPeer","metadata":{"name":"bad"},"spec":{"address":"10.101.0.999","asNumber":65000}}`, "apply", "-f", "-")
	if err == nil {
		return errors.New("it was accepted")
	}
	for _, want := range []string{"spec.address", "10.101.0.999", "expected"} {
		if !strings.Contains(err.Error(), want) {
			return fmt.Errorf("the message lacks %q: %w", want, err)
		}
	}
	return nil
}

// thePods are those of the demo: namespace, name and node.
var thePods = [][3]string{
	{"shop", "web", "a1"},
	{"shop", "api", "b1"},
	{"shop", "db", "b2"},
	{"guest", "ann", "a2"},
	{"guest", "bob", "b1"},
	{"guest", "cid", "a1"},
}

// port is what every pod serves on, over TCP and UDP.
const port = 8080

func podManifest(namespace, name, node string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {app: %[2]s}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: whoami
    ports: [{containerPort: %[4]d}, {containerPort: %[4]d, protocol: UDP}]
`, namespace, name, node, port)
}

func (s *story) pods(ctx context.Context) {
	text := "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: guest}\n"
	for _, p := range thePods {
		text += podManifest(p[0], p[1], p[2])
	}
	_, err := s.kubectl(ctx, text, "apply", "-f", "-")
	if err == nil {
		_, err = s.kubectl(ctx, "", "wait", "--for=condition=Ready", "pod", "--all", "-A", "--timeout=60s")
	}
	s.check("six pods, applied with kubectl, are Ready", err)
	if text, err := s.kubectl(ctx, "", "get", "pods", "-A", "-o", "wide", "--no-headers"); err == nil {
		s.show(text)
	}
	s.check("each has an address of each pool", s.learnAddresses())
	s.within(ctx, 20*time.Second, "each address is in a block that its node owns", s.addressesInBlocks)
	if text, err := s.kubectl(ctx, "", "get", "blocks"); err == nil {
		s.show(text)
	}
}

func (s *story) learnAddresses() error {
	for _, p := range thePods {
		name := p[0] + "/" + p[1]
		pod, err := s.lab.Pod(name)
		if err != nil {
			return err
		}
		for _, pool := range []struct {
			netip.Prefix
			ends *[]matrix.End
		}{{s.lab.Topology.Pool, &s.ends}, {s.lab.Topology.Pool6, &s.ends6}} {
			i := slices.IndexFunc(pod.Addresses, pool.Contains)
			if pool.IsValid() && i < 0 {
				return fmt.Errorf("%s has %v, none of %s", name, pod.Addresses, pool)
			}
			if pool.IsValid() {
				*pool.ends = append(*pool.ends, matrix.End{Name: name, Addr: pod.Addresses[i]})
			}
		}
	}
	return nil
}

func (s *story) addressesInBlocks(ctx context.Context) error {
	for _, e := range slices.Concat(s.families()...) {
		block, err := s.blockOf(ctx, e.Addr)
		if err != nil {
			return err
		}
		if node := s.nodeOf(e).Name; block.Spec.Node != node {
			return fmt.Errorf("%s on %s has %s of block %s, which %s owns", e.Name, node, e.Addr, block.Name, block.Spec.Node)
		}
	}
	return nil
}

func (s *story) blockOf(ctx context.Context, a netip.Addr) (v1.Block, error) {
	var blocks v1.BlockList
	if err := s.lab.List(ctx, &blocks); err != nil {
		return v1.Block{}, err
	}
	for _, b := range blocks.Items {
		if p, err := netip.ParsePrefix(string(b.Spec.CIDR)); err == nil && p.Contains(a) {
			return b, nil
		}
	}
	return v1.Block{}, fmt.Errorf("no block has %s", a)
}
