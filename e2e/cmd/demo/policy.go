package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/e2e/lab/matrix"
)

// policies are applied one after the other and stay until the end of the scene.
// %s is where the host outside goes.
var policies = []struct{ name, what, text string }{
	{"deny", "nothing reaches the pods of shop", `
  podSelector: {}
  policyTypes: [Ingress]`},
	{"web-to-api", "in shop, web reaches api on 8080 over TCP", `
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 8080, protocol: TCP}]`},
	{"guests-to-web", "guests but cid reach web, and so does the host outside, on ports 8000 to 8100", `
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: guest}}
      podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [cid]}]}
%s    ports: [{port: 8000, endPort: 8100, protocol: TCP}]`},
	{"web-only-to-api", "web itself opens connections only to api", `
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: api}}}]}]`},
}

// enforce is how long a policy may take to be in force on every node.
const enforce = 10 * time.Second

func (s *story) policy(ctx context.Context) {
	var pairs []matrix.Pair
	for _, ends := range s.families() {
		pairs = append(pairs, matrix.Pairs(ends)...)
		for _, e := range ends {
			pairs = append(pairs, matrix.Pair{From: s.outsider(e), To: e})
		}
	}
	first := pairs[:len(pairs)/len(s.families())] // koratctl is asked about pods, not about their addresses
	// Closed pairs cost the whole wait, so it is short.
	tcp := matrix.Probe{Protocol: "tcp", Port: port, Wait: 500 * time.Millisecond}
	udp := matrix.Probe{Protocol: "udp", Port: port, Wait: 500 * time.Millisecond}
	for _, p := range policies {
		spec := strings.ReplaceAll(p.text, "%s", s.outsideBlocks())
		manifest := fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: shop}\nspec:%s\n", p.name, spec)
		if _, err := s.kubectl(ctx, manifest, "apply", "-f", "-"); err != nil {
			s.check("kubectl apply of the policy "+p.name, err)
			continue
		}
		s.asPredicted(ctx, fmt.Sprintf("%s: %s", p.name, p.what), tcp, pairs)
	}
	s.asPredicted(ctx, "the same four, asked over UDP", udp, pairs)
	s.asExplained(ctx, "koratctl policy explain", tcp, first)
	if text, err := s.koratctl(ctx, "policy", "explain", "guest/cid", fmt.Sprintf("shop/web:%d", port)); err == nil || isDenied(err) {
		s.show("# koratctl policy explain guest/cid shop/web:" + fmt.Sprint(port) + "\n" + text)
	}
	s.drops(ctx)
	if _, err := s.kubectl(ctx, "", "delete", "networkpolicy", "-n", "shop", "--all"); err != nil {
		s.check("kubectl delete of the policies", err)
	}
	s.asPredicted(ctx, "all policies deleted", tcp, pairs)

	if _, err := s.kubectl(ctx, tiered, "apply", "-f", "-"); err != nil {
		s.check("kubectl apply of a tier and Korat's own policies", err)
		return
	}
	s.asExplained(ctx, "a tier that denies cid everything, and a policy of Korat's own kind behind it", tcp, first)
	s.counted(ctx)
	if _, err := s.kubectl(ctx, tiered, "delete", "-f", "-"); err != nil {
		s.check("kubectl delete of the tier and its policies", err)
	}
	s.asExplained(ctx, "tier and policies deleted", tcp, first)
}

// counted checks that policies of Korat's own kinds say whom they select, and that
// every node that needs them has them.
func (s *story) counted(ctx context.Context) {
	const told = 40 * time.Second // nodes tell every 5 s, and it takes 12 s to be sure that all have
	s.within(ctx, told, "kubectl get shows whom Korat's own policies select and that every node that needs them has them", func(ctx context.Context) error {
		for _, kind := range []string{"networkpolicies.korat.dev", "globalnetworkpolicies.korat.dev"} {
			text, err := s.kubectl(ctx, "", "get", kind, "-A", "-o",
				`jsonpath={range .items[*]}{.metadata.name} {.status.endpoints} {.status.programmed} {.status.conditions[?(@.type=="Programmed")].status}{"\n"}{end}`)
			if err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				var name, programmed, status string
				var endpoints int
				if n, _ := fmt.Sscan(line, &name, &endpoints, &programmed, &status); n < 4 || endpoints == 0 || status != "True" {
					return fmt.Errorf("%s: %s", kind, line)
				}
				if has, need, _ := strings.Cut(programmed, "/"); has != need || has == "0" {
					return fmt.Errorf("%s: %s", kind, line)
				}
			}
			if text == "" {
				return fmt.Errorf("no %s", kind)
			}
		}
		return nil
	})
	if text, err := s.kubectl(ctx, "", "get", "networkpolicies.korat.dev,globalnetworkpolicies.korat.dev", "-A"); err == nil {
		s.show("# kubectl get networkpolicies.korat.dev,globalnetworkpolicies.korat.dev -A\n" + text)
	}
}

// outsideBlocks are the ipBlocks of the host outside, without a half of its
// subnet in which it is not.
func (s *story) outsideBlocks() string {
	h := s.lab.Topology.Hosts[0]
	var out strings.Builder
	for _, p := range []netip.Prefix{h.Subnet, h.Subnet6} {
		if !p.IsValid() {
			continue
		}
		upper := p.Addr().AsSlice()
		upper[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
		a, _ := netip.AddrFromSlice(upper)
		fmt.Fprintf(&out, "    - ipBlock: {cidr: \"%s\", except: [\"%s\"]}\n", p, netip.PrefixFrom(a, p.Bits()+1))
	}
	return out.String()
}

// tiered is what Kubernetes' own policies cannot say: order, Deny and Pass.
const tiered = `
apiVersion: korat.dev/v1
kind: Tier
metadata: {name: security}
spec: {order: 100, defaultAction: Pass}
---
apiVersion: korat.dev/v1
kind: GlobalNetworkPolicy
metadata: {name: no-cid}
spec:
  tier: security
  order: 10
  types: [Ingress]
  ingress:
  - action: Deny
    source: {selector: app == 'cid'}
---
apiVersion: korat.dev/v1
kind: NetworkPolicy
metadata: {name: api-for-guests, namespace: shop}
spec:
  selector: app == 'api'
  ingress:
  - action: Allow
    protocol: TCP
    source: {namespaceSelector: kubernetes.io/metadata.name == 'guest'}
    destination: {ports: [8080]}
`

// asExplained checks that packets do what koratctl says, for every pair.
func (s *story) asExplained(ctx context.Context, what string, probe matrix.Probe, pairs []matrix.Pair) {
	var mu sync.Mutex // guards open and n
	open, n := map[matrix.Pair]bool{}, 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, p := range pairs {
		g.Go(func() error {
			from := p.From.Name
			if p.From == s.outsider(p.To) {
				from = p.From.Addr.String()
			}
			_, err := s.koratctl(gctx, "policy", "explain", from, fmt.Sprintf("%s:%d/%s", p.To.Name, probe.Port, probe.Protocol))
			if err != nil && !isDenied(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if open[p] = err == nil; open[p] {
				n++
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		s.check(what, err)
		return
	}
	what = fmt.Sprintf("%s: %d of %d pairs open, and packets agree", what, n, len(pairs))
	s.within(ctx, enforce, what, func(ctx context.Context) error {
		return probe.As(ctx, s.lab, pairs, func(p matrix.Pair) bool { return open[p] })
	})
}

// isDenied tells koratctl's answer "denied" from an error.
func isDenied(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == 3
}

// koratctl runs koratctl as the cluster's admin.
func (s *story) koratctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "koratctl"), append(args, "--kubeconfig", s.lab.Kubeconfig())...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("koratctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()))
	}
	return out.String(), nil
}

// asPredicted checks the pairs against policy/eval, asked about the objects
// that are in the API server now.
func (s *story) asPredicted(ctx context.Context, what string, probe matrix.Probe, pairs []matrix.Pair) {
	world, err := matrix.World(ctx, s.lab)
	if err != nil {
		s.check(what, err)
		return
	}
	open := map[matrix.Pair]bool{}
	n := 0
	for _, p := range pairs {
		if open[p] = probe.Open(world, p); open[p] {
			n++
		}
	}
	what = fmt.Sprintf("%s: %d of %d pairs open, as predicted", what, n, len(pairs))
	s.within(ctx, enforce, what, func(ctx context.Context) error {
		return probe.As(ctx, s.lab, pairs, func(p matrix.Pair) bool { return open[p] })
	})
}
