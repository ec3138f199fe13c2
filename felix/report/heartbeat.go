package report

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// BeatEvery is how often an agent shows that it lives: one small write, which no
// other agent hears of.
const BeatEvery = 40 * time.Second

// heart renews the node's Lease. One goroutine uses it.
type heart struct {
	client rest.Interface // of group coordination.k8s.io/v1
	node   string
	lease  *coordinationv1.Lease // as the API server has it; nil: not known
	last   time.Time             // of the last beat that succeeded
}

// due reports whether it is time for a beat.
func (h *heart) due(now time.Time) bool { return now.Sub(h.last) >= BeatEvery }

// beat renews the Lease, or makes it. It belongs to the NodeNetwork owner, so
// that it is collected when that goes.
func (h *heart) beat(ctx context.Context, owner *koratv1.NodeNetwork, now time.Time) error {
	name := koratv1.LeaseOfAgent + "." + h.node
	if h.lease == nil {
		found := &coordinationv1.Lease{}
		err := h.client.Get().Namespace(koratv1.LeaseNamespace).Resource("leases").Name(name).Do(ctx).Into(found)
		if err == nil {
			h.lease = found
		} else if !apierrors.IsNotFound(err) {
			return fmt.Errorf("lease %s: %w", name, err)
		}
	}
	next := &coordinationv1.Lease{}
	write := h.client.Post().Namespace(koratv1.LeaseNamespace).Resource("leases")
	if h.lease != nil {
		next = h.lease.DeepCopy()
		write = h.client.Put().Namespace(koratv1.LeaseNamespace).Resource("leases").Name(name)
	}
	next.Name, next.Namespace = name, koratv1.LeaseNamespace
	next.Labels = map[string]string{koratv1.LeaseLabel: koratv1.LeaseOfAgent}
	next.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: koratv1.GroupVersion.String(), Kind: "NodeNetwork", Name: owner.Name, UID: owner.UID,
	}}
	seconds, at := int32(BeatEvery/time.Second), metav1.NewMicroTime(now)
	next.Spec = coordinationv1.LeaseSpec{HolderIdentity: &h.node, LeaseDurationSeconds: &seconds, RenewTime: &at}
	if err := write.Body(next).Do(ctx).Into(next); err != nil {
		h.lease = nil // changed by somebody else, or gone: read it again
		return fmt.Errorf("lease %s: %w", name, err)
	}
	h.lease, h.last = next, now
	return nil
}
