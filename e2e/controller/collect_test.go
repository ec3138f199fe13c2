package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/controller"
)

func machine(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// podAt makes a running pod with an address, bound to node.
func podAt(t *testing.T, name, node, address string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: new(int64),
		},
	}
	create(t, p)
	p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, address, []corev1.PodIP{{IP: address}}
	if err := admin.Status().Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func gone(ctx context.Context, o client.Object) error {
	err := admin.Get(ctx, client.ObjectKeyFromObject(o), o)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s is there: %w", o.GetName(), err)
}

func TestBlocksOfNodesThatAreGoneAreCollected(t *testing.T) {
	lives, renewed := machine("lives"), machine("renewed")
	create(t, lives, renewed)
	owned := func(name, cidr string, n *corev1.Node) *koratv1.Block {
		b := ipBlock(name, cidr, "none")
		b.Spec.Node, b.Spec.NodeUID = n.Name, string(n.UID)
		// What its agent, which ends then, has answered to the controller.
		b.Spec.Requests = []koratv1.BlockRequest{{
			CIDR: b.Spec.CIDR, Node: "korat-controller", NodeUID: "u", JournalID: "korat-controller", Number: 1, Refused: "I am alive",
		}}
		create(t, b)
		return b
	}
	of := owned("10-66-0-0-28", "10.66.0.0/28", lives)
	before := owned("10-66-0-16-28", "10.66.0.16/28", renewed)
	claimed := owned("10-66-0-32-28", "10.66.0.32/28", renewed)
	pod := podAt(t, "elsewhere", "lives", "10.66.0.33")

	remove(t, renewed)
	again := machine("renewed")
	create(t, again)
	after := owned("10-66-0-48-28", "10.66.0.48/28", again)
	runWith(t, controller.Config{BlockGrace: 2 * time.Second})

	uid := before.UID
	within(t, func(ctx context.Context) error { return gone(ctx, before) })
	before.UID = uid
	told := strings.Join(events(t, before, 3), "\n") // that there is no such pool is the third
	if !strings.Contains(told, "BlockCollected: node renewed (uid ") || !strings.Contains(told, "because its agent answers: I am alive") {
		t.Errorf("events %q", told)
	}
	if told := events(t, claimed, 3); !strings.Contains(strings.Join(told, "\n"), "because pod default/elsewhere has an address of it") {
		t.Errorf("events %q", told)
	}
	remove(t, pod)
	within(t, func(ctx context.Context) error { return gone(ctx, claimed) })
	for _, b := range []*koratv1.Block{of, after} { // they had as much time
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(b), b); err != nil {
			t.Errorf("a block of a node that lives: %v", err)
		}
	}
}
