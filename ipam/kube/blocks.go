// Package kube is ipam's door to the API server: it claims blocks by creating
// their objects and publishes which addresses they hold.
package kube

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
)

// Blocks claims and publishes Blocks. It is safe for concurrent use.
type Blocks struct {
	client rest.Interface // of group korat.dev/v1
}

// NewBlocks returns Blocks that speak through client.
func NewBlocks(client rest.Interface) *Blocks { return &Blocks{client} }

// Claim creates the object of b. The API server lets one creator win: that is
// the whole claim. A claim whose reply got lost is recognised by its owner.
func (k *Blocks) Claim(ctx context.Context, b ipam.Block) error {
	name := koratv1.BlockName(b.CIDR)
	obj := &koratv1.Block{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: koratv1.BlockSpec{
			CIDR: koratv1.CIDR(b.CIDR.String()), Pool: b.Pool,
			Node: b.Owner.Node, NodeUID: b.Owner.UID, JournalID: b.Owner.Journal,
		},
	}
	err := k.client.Post().Resource("blocks").Body(obj).Do(ctx).Error()
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	var there koratv1.Block
	if err := k.client.Get().Resource("blocks").Name(name).Do(ctx).Into(&there); err != nil {
		return err
	}
	if there.Spec == obj.Spec {
		return nil
	}
	return ipam.ErrConflict
}

// TakeOver writes b's owner into its object if that is from's. The update
// carries the version of what was read, so that of two that try one wins.
func (k *Blocks) TakeOver(ctx context.Context, b ipam.Block, from ipam.Owner) error {
	var obj koratv1.Block
	err := k.client.Get().Resource("blocks").Name(koratv1.BlockName(b.CIDR)).Do(ctx).Into(&obj)
	if apierrors.IsNotFound(err) {
		return ipam.ErrConflict
	}
	if err != nil {
		return err
	}
	switch owner(&obj) {
	case b.Owner: // the reply to an earlier try was lost
		return nil
	case from:
	default:
		return ipam.ErrConflict
	}
	obj.Spec.NodeUID, obj.Spec.JournalID = b.Owner.UID, b.Owner.Journal
	err = k.client.Put().Resource("blocks").Name(obj.Name).Body(&obj).Do(ctx).Error()
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return ipam.ErrConflict
	}
	return err
}

// Release deletes the object of b if its owner is b's. The delete carries UID
// and version of what was read.
func (k *Blocks) Release(ctx context.Context, b ipam.Block) error {
	var obj koratv1.Block
	err := k.client.Get().Resource("blocks").Name(koratv1.BlockName(b.CIDR)).Do(ctx).Into(&obj)
	if err != nil || owner(&obj) != b.Owner {
		return ignoreNotFound(err)
	}
	as := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &obj.UID, ResourceVersion: &obj.ResourceVersion}}
	return ignoreNotFound(k.client.Delete().Resource("blocks").Name(obj.Name).Body(as).Do(ctx).Error())
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func owner(b *koratv1.Block) ipam.Owner {
	return ipam.Owner{Node: b.Spec.Node, UID: b.Spec.NodeUID, Journal: b.Spec.JournalID}
}

// Publish writes what is allocated in u to the block's status, if it differs
// from what is there. A block whose object was deleted while pods hold
// addresses of it is claimed again as b says.
func (k *Blocks) Publish(ctx context.Context, b ipam.Block, u assign.Usage) error {
	var obj koratv1.Block
	err := k.client.Get().Resource("blocks").Name(koratv1.BlockName(u.CIDR)).Do(ctx).Into(&obj)
	if apierrors.IsNotFound(err) {
		if err := k.Claim(ctx, b); err != nil {
			return fmt.Errorf("block %s was deleted and cannot be claimed again: %w", u.CIDR, err)
		}
		err = k.client.Get().Resource("blocks").Name(koratv1.BlockName(u.CIDR)).Do(ctx).Into(&obj)
	}
	if err != nil {
		return fmt.Errorf("block %s: %w", u.CIDR, err)
	}
	if obj.Spec.Node != b.Owner.Node || obj.Spec.JournalID != b.Owner.Journal {
		return fmt.Errorf("block %s belongs to node %s: %w", u.CIDR, obj.Spec.Node, ipam.ErrConflict)
	}
	status := status(u)
	status.Conditions = obj.Status.Conditions
	if equality.Semantic.DeepEqual(obj.Status, status) {
		return nil
	}
	obj.Status = status
	err = k.client.Put().Resource("blocks").Name(obj.Name).SubResource("status").Body(&obj).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("status of block %s: %w", u.CIDR, err)
	}
	return nil
}

// PublishAll publishes every block of a's; the errors are joined.
func (k *Blocks) PublishAll(ctx context.Context, a *assign.Allocator) error {
	return a.EachBlock(func(b ipam.Block, u assign.Usage) error { return k.Publish(ctx, b, u) })
}

func status(u assign.Usage) koratv1.BlockStatus {
	s := koratv1.BlockStatus{Allocated: int32(u.Allocated), Quarantined: int32(u.Quarantined), Free: int32(u.Unused)}
	for _, a := range slices.SortedFunc(maps.Keys(u.Held), netip.Addr.Compare) {
		h := u.Held[a]
		s.Addresses = append(s.Addresses, koratv1.BlockAddress{Address: a.String(), Pod: h.Namespace + "/" + h.Pod})
	}
	return s
}
