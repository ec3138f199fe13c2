// Package kube is ipam's door to the API server: it claims blocks by creating
// their objects and publishes which addresses they hold.
package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
)

// publishAgain is how often a block's status is compared with what the API has
// although the agent has nothing new to say: somebody may have edited it.
const publishAgain = 10 * time.Minute

// Blocks claims and publishes Blocks. It is safe for concurrent use.
type Blocks struct {
	client rest.Interface // of group korat.dev/v1

	mu   sync.Mutex // guards said
	said map[netip.Prefix]said
}

// said is what was last written about a block, or found to be there.
type said struct {
	owner  ipam.Owner
	status koratv1.BlockStatus
	at     time.Time
}

// NewBlocks returns Blocks that speak through client.
func NewBlocks(client rest.Interface) *Blocks {
	return &Blocks{client: client, said: map[netip.Prefix]said{}}
}

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
	if owner(&there) == b.Owner && there.Spec.Pool == b.Pool {
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
	obj.Spec.Requests = nil
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

// Publish writes what is allocated in u to the block's status, if that is news.
// The API server is asked only then, and now and then.
func (k *Blocks) Publish(ctx context.Context, b ipam.Block, u assign.Usage) error {
	next := said{b.Owner, status(u), time.Now()}
	k.mu.Lock()
	last := k.said[b.CIDR]
	k.mu.Unlock()
	if last.owner == next.owner && next.at.Sub(last.at) < publishAgain && equality.Semantic.DeepEqual(last.status, next.status) {
		return nil
	}
	if err := k.write(ctx, b, next.status); err != nil {
		return fmt.Errorf("status of block %s: %w", b.CIDR, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.said[b.CIDR] = next
	return nil
}

func (k *Blocks) write(ctx context.Context, b ipam.Block, s koratv1.BlockStatus) error {
	var obj koratv1.Block
	err := k.client.Get().Resource("blocks").Name(koratv1.BlockName(b.CIDR)).Do(ctx).Into(&obj)
	if err != nil {
		return err // a block that is gone is claimed again when the watch tells
	}
	if obj.Spec.Node != b.Owner.Node || obj.Spec.JournalID != b.Owner.Journal {
		return fmt.Errorf("it belongs to node %s: %w", obj.Spec.Node, ipam.ErrConflict)
	}
	s.Conditions = obj.Status.Conditions
	if equality.Semantic.DeepEqual(obj.Status, s) {
		return nil
	}
	obj.Status = s
	return k.client.Put().Resource("blocks").Name(obj.Name).SubResource("status").Body(&obj).Do(ctx).Error()
}

// PublishAll publishes every block of a's, and claims again those that somebody
// deleted; the errors are joined.
func (k *Blocks) PublishAll(ctx context.Context, a *assign.Allocator) error {
	k.forget(a)
	return errors.Join(a.Reclaim(ctx), a.EachBlock(func(b ipam.Block, u assign.Usage) error { return k.Publish(ctx, b, u) }))
}

// forget drops what was said about blocks that are not a's any more.
func (k *Blocks) forget(a *assign.Allocator) {
	own := map[netip.Prefix]bool{}
	for _, u := range a.Usage() {
		own[u.CIDR] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.said, func(cidr netip.Prefix, _ said) bool { return !own[cidr] })
}

func status(u assign.Usage) koratv1.BlockStatus {
	s := koratv1.BlockStatus{
		Allocated: int32(u.Counts.Held), Quarantined: int32(u.Resting), Free: int32(u.Free),
		Reserved: int32(u.Reserved), Given: int32(u.Given),
	}
	for _, a := range slices.SortedFunc(maps.Keys(u.Held), netip.Addr.Compare) {
		s.Addresses = append(s.Addresses, koratv1.BlockAddress{Address: a.String(), Pod: u.Held[a].PodName()})
	}
	for _, a := range slices.SortedFunc(maps.Keys(u.Kept), netip.Addr.Compare) {
		s.Kept = append(s.Kept, koratv1.BlockAddress{Address: a.String(), Pod: u.Kept[a]})
	}
	return s
}
