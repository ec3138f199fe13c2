package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/ipam"
)

const (
	// maxRequests is how many the API takes for one block.
	maxRequests = 32
	// keptRefusals is how many answers stay for those to read who asked.
	keptRefusals = 16
	// rewrites bounds how often a write is repeated that another's write spoiled.
	rewrites = 5
)

// Ask lays w before the owner of b, in place of what w.By asked of it before.
func (k *Blocks) Ask(ctx context.Context, b ipam.Block, w ipam.Want) error {
	return k.rewrite(ctx, b, func(requests []koratv1.BlockRequest) ([]koratv1.BlockRequest, error) {
		requests = slices.DeleteFunc(requests, func(r koratv1.BlockRequest) bool {
			return r.Node == w.By.Node && (r.Refused != "" || r.JournalID == w.By.Journal)
		})
		if len(requests) >= maxRequests {
			return nil, fmt.Errorf("%w: %d nodes ask for parts of block %s already: try again", ipam.ErrTaken, len(requests), b.CIDR)
		}
		return append(requests, request(w)), nil
	})
}

// Answer strikes what is done, and writes why others are refused. Old refusals
// make room for new ones.
func (k *Blocks) Answer(ctx context.Context, b ipam.Block, done, refused []ipam.Want) error {
	return k.rewrite(ctx, b, func(requests []koratv1.BlockRequest) ([]koratv1.BlockRequest, error) {
		requests = slices.DeleteFunc(requests, func(r koratv1.BlockRequest) bool {
			return slices.ContainsFunc(done, Want(r).Same)
		})
		answered := 0
		for i := len(requests) - 1; i >= 0; i-- {
			for _, w := range refused {
				if Want(requests[i]).Same(w) {
					requests[i].Refused = w.Refused
				}
			}
			if requests[i].Refused == "" {
				continue
			}
			if answered++; answered > keptRefusals {
				requests = slices.Delete(requests, i, i+1)
			}
		}
		return requests, nil
	})
}

// rewrite changes what is asked of b, if b.Owner still owns it.
func (k *Blocks) rewrite(ctx context.Context, b ipam.Block, change func([]koratv1.BlockRequest) ([]koratv1.BlockRequest, error)) error {
	var err error
	for range rewrites {
		var obj koratv1.Block
		err = k.client.Get().Resource("blocks").Name(koratv1.BlockName(b.CIDR)).Do(ctx).Into(&obj)
		if apierrors.IsNotFound(err) || err == nil && owner(&obj) != b.Owner {
			return ipam.ErrConflict
		}
		if err != nil {
			return err
		}
		before := slices.Clone(obj.Spec.Requests)
		if obj.Spec.Requests, err = change(obj.Spec.Requests); err != nil {
			return err
		}
		if slices.Equal(before, obj.Spec.Requests) {
			return nil
		}
		err = k.client.Put().Resource("blocks").Name(obj.Name).Body(&obj).Do(ctx).Error()
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

func request(w ipam.Want) koratv1.BlockRequest {
	r := koratv1.BlockRequest{
		PrefixLength: int32(w.Bits), Node: w.By.Node, NodeUID: w.By.UID, JournalID: w.By.Journal, Pod: w.Pod, Number: w.Number, Refused: w.Refused,
	}
	if w.CIDR.IsValid() {
		r.CIDR = koratv1.CIDR(w.CIDR.String())
	}
	return r
}

// Want returns what r asks for.
func Want(r koratv1.BlockRequest) ipam.Want {
	w := ipam.Want{
		By:   ipam.Owner{Node: r.Node, UID: r.NodeUID, Journal: r.JournalID},
		Bits: int(r.PrefixLength), Pod: r.Pod, Number: r.Number, Refused: r.Refused,
	}
	w.CIDR, _ = netip.ParsePrefix(string(r.CIDR)) // the schema lets no other text pass
	return w
}

// Standing returns what nodes say about the block b.
func Standing(b *koratv1.Block) ipam.Standing {
	s := ipam.Standing{Free: int(b.Status.Free)}
	for _, r := range b.Spec.Requests {
		s.Wants = append(s.Wants, Want(r))
	}
	for _, kept := range b.Status.Kept {
		if a, err := netip.ParseAddr(kept.Address); err == nil {
			if s.Kept == nil {
				s.Kept = map[netip.Addr]string{}
			}
			s.Kept[a] = kept.Pod
		}
	}
	return s
}
