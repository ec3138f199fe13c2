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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab/matrix"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// encapsulation gives the pools the mode that the environment names, while all
// runs, and waits until every node sends so.
func (s *story) encapsulation(ctx context.Context) {
	s.mode = v1.Encapsulation(os.Getenv("ENCAP"))
	if s.mode == "" {
		s.mode = v1.EncapsulationNone
	}
	if s.mode != v1.EncapsulationNone {
		patch := fmt.Sprintf(`{"spec":{"encapsulation":%q}}`, s.mode)
		var pools v1.IPPoolList
		err := s.lab.List(ctx, &pools)
		for _, p := range pools.Items {
			_, one := s.kubectl(ctx, "", "patch", "ippool", p.Name, "--type=merge", "-p", patch)
			err = errors.Join(err, one)
		}
		s.check("kubectl patch of the pools with the encapsulation "+string(s.mode), err)
	}
	if s.encrypted = os.Getenv("ENCRYPTION"); s.encrypted != "" {
		s.encrypt(ctx)
	}
	s.within(ctx, time.Minute, "every node sends to the pods of every pool in "+string(s.mode), s.everyoneSends)
	told := ""
	s.within(ctx, 30*time.Second, "every node says how it reaches the others, and why", func(ctx context.Context) error {
		nodes, err := s.networks(ctx)
		told = ""
		for _, n := range nodes {
			for _, w := range n.Status.Ways {
				told += fmt.Sprintf("%s to %s in %s: %s, %s\n", n.Name, strings.Join(w.Nodes, ", "), w.Pool, w.Encapsulation, w.Reason)
			}
			if err == nil && s.wrapped() && len(n.Status.Ways) == 0 {
				err = fmt.Errorf("%s says nothing", n.Name)
			}
		}
		return err
	})
	s.show(told)
}

// encrypt asks for encryption on all nodes, and waits until each reaches all others so.
// First it is preferred, so that nodes whose keys are not known yet are reached.
func (s *story) encrypt(ctx context.Context) {
	for _, mode := range slices.Compact([]string{string(v1.EncryptionPreferred), s.encrypted}) {
		_, err := s.kubectl(ctx, fmt.Sprintf("apiVersion: korat.dev/v1\nkind: NodeConfiguration\nmetadata: {name: encryption}\nspec: {encryption: {mode: %s}}\n", mode), "apply", "-f", "-")
		s.check("kubectl apply of a NodeConfiguration with the encryption "+mode, err)
		s.within(ctx, time.Minute, "every node reaches all others encrypted", func(ctx context.Context) error {
			nodes, err := s.networks(ctx)
			for _, n := range nodes {
				if c := meta.FindStatusCondition(n.Status.Conditions, v1.ConditionEncrypted); c == nil || c.Status != metav1.ConditionTrue {
					err = errors.Join(err, fmt.Errorf("%s says %v", n.Name, c))
				}
			}
			return err
		})
	}
}

func (s *story) networks(ctx context.Context) ([]v1.NodeNetwork, error) {
	var list v1.NodeNetworkList
	err := s.lab.List(ctx, &list)
	return list.Items, err
}

func (s *story) everyoneSends(ctx context.Context) error {
	nodes, err := s.networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if len(n.Status.Pools) == 0 {
			return fmt.Errorf("%s has no pool", n.Name)
		}
		for _, p := range n.Status.Pools {
			if p.Sends != s.mode {
				return fmt.Errorf("%s sends to %s in %q", n.Name, p.Name, p.Sends)
			}
		}
		for _, t := range n.Status.Tunnels {
			if !t.Ready || t.Address == "" {
				return fmt.Errorf("%s of %s has the address %q, ready %v: %s", t.Interface, n.Name, t.Address, t.Ready, t.Problem)
			}
		}
	}
	return nil
}

// wrapped reports whether some packets between nodes travel in something.
func (s *story) wrapped() bool { return s.mode != v1.EncapsulationNone || s.encrypted != "" }

// tunneled reports whether packets from a to b travel in something.
func (s *story) tunneled(a, b topology.Node) bool {
	cross := strings.HasSuffix(string(s.mode), "CrossSubnet")
	return s.wrapped() && a.Name != b.Name && (!cross || a.Rack != b.Rack || s.encrypted != "")
}

// inside returns the node's addresses inside of tunnels: it answers with them what
// came through one.
func (s *story) inside(ctx context.Context, node string) (out []netip.Addr) {
	nodes, _ := s.networks(ctx)
	for _, n := range nodes {
		for _, t := range n.Status.Tunnels {
			if a, err := netip.ParseAddr(t.Address); err == nil && n.Name == node {
				out = append(out, a)
			}
		}
	}
	return slices.Clip(out)
}

// tunnelRoutes: instead of what neighbours announce, the block of each pod of the
// other rack is a route through the tunnel.
func (s *story) tunnelRoutes(ctx context.Context) {
	s.within(ctx, settle, "the kernel of node a1 has a route of Korat's to each block of rack b, through the tunnel", func(ctx context.Context) error {
		return s.eachPod("b", func(e matrix.End, _ topology.Node) error {
			text, err := s.output(ctx, "a1", "ip", "route", "get", e.Addr.String())
			if err != nil {
				return fmt.Errorf("%w: %s", err, text)
			}
			if !strings.Contains(text, "-korat") {
				return fmt.Errorf("it leads to %s", text)
			}
			return nil
		})
	})
}
