package addresses

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/kube"
)

// Releasable returns the block that can be deleted so that what is free again: a
// block of a node that is gone, named by its range or an address of it. The error
// says why there is none. Addresses of a node that lives are its agent's business.
func (b *Books) Releasable(what netip.Prefix) (*koratv1.Block, error) {
	blocks := b.blocks()
	i := slices.IndexFunc(blocks, func(x block) bool { return x.cidr == what })
	var x block
	switch {
	case i >= 0:
		x = blocks[i]
	case what.IsSingleIP():
		found := false
		if x, found = narrowest(blocks, what.Addr()); !found {
			return nil, fmt.Errorf("%s is in no block: nobody holds it", what.Addr())
		}
	default:
		return nil, fmt.Errorf("there is no block %s", what)
	}
	if b.Nodes[x.Spec.Node] == x.Spec.NodeUID {
		return nil, fmt.Errorf("block %s is of node %s, which is there: its agent frees what no pod has within two minutes, and gives the block back when it is empty", x.cidr, x.Spec.Node)
	}
	for _, o := range blocks {
		if o.cidr.Bits() > x.cidr.Bits() && x.cidr.Contains(o.cidr.Addr()) {
			return nil, fmt.Errorf("block %s is of node %s, which is gone, and node %s has a part of it, %s: the controller gives the block to that node", x.cidr, x.Spec.Node, o.Spec.Node, o.cidr)
		}
	}
	for _, p := range b.pods() {
		for _, a := range addrsOf(p) {
			if x.cidr.Contains(a) {
				return nil, fmt.Errorf("block %s is of node %s, which is gone, and pod %s/%s has %s of it: delete the pod first", x.cidr, x.Spec.Node, p.Namespace, p.Name, a)
			}
		}
	}
	return x.Block, nil
}

// Release deletes the block as it was read.
func Release(ctx context.Context, c *kube.Clients, x *koratv1.Block) error {
	as := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &x.UID, ResourceVersion: &x.ResourceVersion}}
	err := c.Korat.Delete().Resource("blocks").Name(x.Name).Body(as).Do(ctx).Error()
	if apierrors.IsConflict(err) {
		return fmt.Errorf("block %s was changed meanwhile: look again", x.Spec.CIDR)
	}
	return err
}
