package main

import (
	"context"
	"fmt"
	"time"

	"github.com/koratnet/korat/e2e/lab/matrix"
)

// policies are applied one after the other and stay until the end of the scene.
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
    - ipBlock: {cidr: 10.104.0.0/16, except: [10.104.0.128/25]}
    ports: [{port: 8000, endPort: 8100, protocol: TCP}]`},
	{"web-only-to-api", "web itself opens connections only to api", `
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: api}}}]}]`},
}

// enforce is how long a policy may take to be in force on every node.
const enforce = 10 * time.Second

func (s *story) policy(ctx context.Context) {
	outside := s.outsider()
	pairs := matrix.Pairs(s.ends)
	for _, e := range s.ends {
		pairs = append(pairs, matrix.Pair{From: outside, To: e})
	}
	// Closed pairs cost the whole wait, so it is short.
	tcp := matrix.Probe{Protocol: "tcp", Port: port, Wait: 500 * time.Millisecond}
	udp := matrix.Probe{Protocol: "udp", Port: port, Wait: 500 * time.Millisecond}
	for _, p := range policies {
		manifest := fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: shop}\nspec:%s\n", p.name, p.text)
		if _, err := s.kubectl(ctx, manifest, "apply", "-f", "-"); err != nil {
			s.check("kubectl apply of the policy "+p.name, err)
			continue
		}
		s.asPredicted(ctx, fmt.Sprintf("%s: %s", p.name, p.what), tcp, pairs)
	}
	s.asPredicted(ctx, "the same four, asked over UDP", udp, pairs)
	if _, err := s.kubectl(ctx, "", "delete", "networkpolicy", "-n", "shop", "--all"); err != nil {
		s.check("kubectl delete of the policies", err)
	}
	s.asPredicted(ctx, "all policies deleted", tcp, pairs)
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
