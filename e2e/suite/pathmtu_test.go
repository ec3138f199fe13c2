package suite

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/felix/report"
)

// TestABlackHoleIsToldAndThatItIsGone: a router between the racks swallows what is
// larger than 1,400 bytes and says nothing, while all travels in VXLAN. Packets that
// devices finish arrive: virtual cables carry what is unfinished.
func TestABlackHoleIsToldAndThatItIsGone(t *testing.T) {
	const node, router = "a1", "tor-a"
	travel(t, koratv1.EncapsulationVXLAN)
	t.Cleanup(func() {
		travel(t, koratv1.EncapsulationNone)
		arrived(t, koratv1.EncapsulationNone)
	})
	arrived(t, koratv1.EncapsulationVXLAN)
	toldOf(t, node, "trials through the tunnel", func(s koratv1.NodeNetworkStatus) bool {
		return len(s.Tunnels) > 0 && s.Tunnels[0].Offload == koratv1.SwitchEnabled && strings.Contains(s.Tunnels[0].OffloadReason, "arrive")
	})
	path := func(status metav1.ConditionStatus, reason, says string) func(koratv1.NodeNetworkStatus) bool {
		return func(s koratv1.NodeNetworkStatus) bool {
			c := meta.FindStatusCondition(s.Conditions, koratv1.ConditionPathMTU)
			return c != nil && c.Status == status && c.Reason == reason && strings.Contains(c.Message, says)
		}
	}
	toldOf(t, node, "whole packets", path(metav1.ConditionTrue, koratv1.ReasonFullSize, ""))
	sh(t, cluster, router, "nft", "add table inet hole")
	mended := false
	mend := func() {
		if !mended {
			sh(t, cluster, router, "nft", "delete table inet hole")
		}
		mended = true
	}
	t.Cleanup(mend)
	sh(t, cluster, router, "nft", "add chain inet hole forward { type filter hook forward priority -300; }")
	sh(t, cluster, router, "nft", "add rule inet hole forward meta length > 1400 drop")
	toldOf(t, node, "the black hole", path(metav1.ConditionFalse, koratv1.ReasonBlackHole, "set mtu in a NodeConfiguration to 1350"))
	eventOf(t, node, report.ReasonPathMTUTooSmall)
	mend()
	toldOf(t, node, "whole packets again", path(metav1.ConditionTrue, koratv1.ReasonFullSize, ""))
	eventOf(t, node, report.ReasonPathMTUGood)
}

// toldOf waits until the status of a node is good. Each node is tried every ten seconds,
// and trouble counts when it was found twice.
func toldOf(t *testing.T, node, what string, good func(koratv1.NodeNetworkStatus) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		var n koratv1.NodeNetwork
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, &n); err != nil {
			return err
		}
		if !good(n.Status) {
			return fmt.Errorf("it says %+v of tunnels and %+v of paths", n.Status.Tunnels, meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionPathMTU))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s, as %s tells of it: %v", what, node, err)
	}
}

// eventOf waits for an Event about the NodeNetwork of a node.
func eventOf(t *testing.T, node, reason string) {
	t.Helper()
	eventually(t, "Event "+reason, func(ctx context.Context) error {
		var events corev1.EventList
		if err := cluster.List(ctx, &events); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Kind == "NodeNetwork" && e.InvolvedObject.Name == node && e.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("none of %d is it", len(events.Items))
	})
}
