//go:build encryption

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

// turn is how long packets take one key: far below what people may ask for.
const turn = 20 * time.Second

// allowShortTurns takes the bounds of the period off, until the test ends.
func allowShortTurns(t *testing.T) {
	t.Helper()
	const path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/encryption/properties/rotation/properties/period/x-kubernetes-validations"
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: "nodeconfigurations.korat.dev"}, crd); err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	rules, found, err := unstructured.NestedSlice(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec", "properties",
		"encryption", "properties", "rotation", "properties", "period", "x-kubernetes-validations")
	if err != nil || !found {
		t.Fatalf("bounds of the period: %v, %v", rules, err)
	}
	patch := func(ctx context.Context, op string) error {
		text, err := json.Marshal([]map[string]any{{"op": op, "path": path, "value": rules}})
		if err != nil {
			return err
		}
		return cluster.Client.Patch(ctx, crd, client.RawPatch(types.JSONPatchType, text))
	}
	if err := patch(t.Context(), "remove"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := patch(context.Background(), "add"); err != nil {
			t.Error(err)
		}
	})
}

// keys are all that nodes were seen to announce, by node and interface.
type keys map[string]map[string]struct{}

// look adds what is announced now.
func (k keys) look(ctx context.Context) error {
	var nodes koratv1.NodeNetworkList
	if err := cluster.List(ctx, &nodes); err != nil {
		return err
	}
	for _, n := range nodes.Items {
		for _, w := range n.Status.WireGuard {
			at := n.Name + " " + w.Interface
			if k[at] == nil {
				k[at] = map[string]struct{}{}
			}
			k[at][w.PublicKey] = struct{}{}
		}
	}
	return nil
}

// renewed waits until nodes have announced so many keys more at each of two interfaces.
func renewed(t *testing.T, more int, nodes ...string) {
	t.Helper()
	seen := keys{}
	for range more {
		for _, odd := range []string{"", "-odd"} { // a turn each at least, so that none waits too long
			eventually(t, fmt.Sprintf("%v renew the key of wg4-korat%s", nodes, odd), func(ctx context.Context) error {
				err := seen.look(ctx)
				for _, n := range nodes {
					if at := n + " wg4-korat" + odd; len(seen[at]) < 2 {
						err = errors.Join(err, fmt.Errorf("%s: %d keys", at, len(seen[at])))
					}
				}
				return err
			})
		}
		seen = keys{}
	}
}

// TestKeysTakeTurnsAndNothingIsLostOrInClear: between pods of three nodes, and from a pod
// to a node, while every key is renewed several times, and others renew theirs while an
// agent is away.
func TestKeysTakeTurnsAndNothingIsLostOrInClear(t *testing.T) {
	allowShortTurns(t)
	namespace(t, cluster, "turns")
	addrs := map[string]netip.Addr{}
	for _, node := range []string{"a1", "a2", "b1"} {
		addrs[node] = start(t, cluster, podOn(node, "turns", node, map[string]string{"app": node}))
	}
	encrypt(t, koratv1.EncryptionPreferred)
	encrypt(t, koratv1.EncryptionRequired)
	eventually(t, "the pools lead nowhere but through tunnels", closed)
	everybodyReaches(t, "turns", addrs)
	var wires []*lab.Capture
	for _, node := range []string{"a1", "a2", "b1"} {
		wires = append(wires, capture(t, node, "net 10.244.0.0/16"))
	}
	flows := []*flow{
		pingFlow(t, cluster, "turns/a1", addrs["b1"]), pingFlow(t, cluster, "turns/b1", addrs["a1"]),
		pingFlow(t, cluster, "turns/a2", addrs["b1"]), pingFlow(t, cluster, "turns/b1", addrs["a2"]),
		pingFlow(t, cluster, "turns/a1", addressOf(t, "b1")),
	}
	heardSince(t, flows, time.Now())

	c := &koratv1.NodeConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "rotation"}}
	c.Spec.Encryption.Rotation.Period = &metav1.Duration{Duration: turn}
	eventually(t, "the API server takes a short period", func(ctx context.Context) error { return cluster.Client.Create(ctx, c) })
	ended := false
	t.Cleanup(func() {
		if !ended {
			remove(t, cluster, c)
		}
	})
	renewed(t, 1, "a1", "a2", "b1", "b2")

	if err := cluster.KillAgent(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	seen := keys{}
	eventually(t, "another key takes its turn on the nodes that are left", func(ctx context.Context) error {
		if err := seen.look(ctx); err != nil {
			return err
		}
		for _, n := range []string{"a2", "b1", "b2"} {
			if len(seen[n+" wg4-korat"])+len(seen[n+" wg4-korat-odd"]) < 3 {
				return fmt.Errorf("%s: %v", n, seen)
			}
		}
		return nil
	})
	if err := cluster.StartAgent(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	renewed(t, 1, "a1", "a2", "b1", "b2")
	heardSince(t, flows, time.Now())
	for _, f := range flows {
		f.end()
		sent, lost := f.count()
		t.Logf("%s: %d packets", f.name, sent)
		if len(lost) > 0 {
			t.Errorf("%s lost %d of %d packets: %v", f.name, len(lost), sent, lost[:min(len(lost), 50)])
		}
	}
	for _, w := range wires {
		if text := w.Seen(); text != "" {
			t.Errorf("the wire of %s saw packets of pods in clear:\n%s", w.Machine, text[:min(len(text), 2000)])
		}
	}
	ended = true
	remove(t, cluster, c)
	everybodyReaches(t, "turns", addrs)
}
