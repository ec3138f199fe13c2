package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/ipam"
)

// DefaultBlockGrace is how long the Node of a block has to be gone before the
// block is deleted: longer than a node takes that is deleted to be set up again
// and whose agent then takes its blocks over.
const DefaultBlockGrace = 15 * time.Minute

// Reasons of Events about blocks of nodes that are gone.
const (
	ReasonBlockCollected = "BlockCollected" // it is deleted
	ReasonBlockKept      = "BlockKept"      // a pod still has an address of it, or a node a part
	ReasonBlockInherited = "BlockInherited" // it is a node's now that has a part of it
)

// looks is how often a block is looked at within the grace, at least.
const looks = 5

// podsAtOnce is how many pods are asked for at a time.
const podsAtOnce = 500

// A collector deletes the blocks of nodes that are gone, when their agents do not
// answer any more either: a machine may run pods although its Node was deleted. One
// goroutine runs it, and only in the replica that leads.
type collector struct {
	cache  client.Reader
	server client.Reader // asked just before something is deleted
	writer client.Client
	grace  time.Duration
	log    *slog.Logger
	seen   sightings
}

func newCollector(mgr manager.Manager, c Config) *collector {
	return &collector{
		cache: mgr.GetClient(), server: mgr.GetAPIReader(), writer: mgr.GetClient(),
		grace: cmp.Or(c.BlockGrace, DefaultBlockGrace), log: c.Log, seen: sightings{},
	}
}

// Start runs the collector until ctx ends.
func (c *collector) Start(ctx context.Context) error {
	return every(ctx, c.grace/looks, c.collect, func(err error) { c.log.Warn("blocks of nodes that are gone are not collected", "error", err) })
}

// collect looks once. A new leader has seen nothing and waits the grace anew.
func (c *collector) collect(ctx context.Context, now time.Time) error {
	var blocks koratv1.BlockList
	if err := c.cache.List(ctx, &blocks, shared); err != nil {
		return fmt.Errorf("blocks: %w", err)
	}
	nodes, err := nodeUIDs(ctx, c.cache)
	if err != nil {
		return err
	}
	due := c.seen.due(orphans(blocks.Items, nodes), now, c.grace)
	if len(due) == 0 {
		return nil
	}
	if nodes, err = nodeUIDs(ctx, c.server); err != nil { // the cache may be behind
		return err
	}
	claims, err := claimsOf(ctx, c.server)
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range orphans(due, nodes) {
		dead, err := c.answered(ctx, &b, now)
		if dead {
			err = c.end(ctx, &b, blocks.Items, nodes, claims)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// end ends the claim of a node that is gone, unless a pod has an address of b. A
// block of which others have parts is not deleted: a node that claimed it anew
// might not have heard of these. It goes to one of those others.
func (c *collector) end(ctx context.Context, b *koratv1.Block, all []koratv1.Block, nodes map[string]types.UID, claims map[netip.Addr]string) error {
	keep := func(why string) error {
		return tell(ctx, c.writer, b, []warning{{"kept", ReasonBlockKept, fmt.Sprintf(
			"node %s (uid %s) is gone, and the block stays because %s", b.Spec.Node, b.Spec.NodeUID, why)}})
	}
	parts := partsOf(b, all)
	if pod := claimant(b, parts, claims); pod != "" {
		return keep("pod " + pod + " has an address of it")
	}
	if len(parts) == 0 {
		return c.delete(ctx, b)
	}
	for _, p := range parts {
		if nodes[p.Spec.Node] == types.UID(p.Spec.NodeUID) {
			return c.bequeath(ctx, b, p)
		}
	}
	return keep("parts of it belong to nodes that are gone too and come first")
}

// bequeath makes b the block of heir's owner, unless b changed since it was seen.
func (c *collector) bequeath(ctx context.Context, b, heir *koratv1.Block) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": b.UID, "resourceVersion": b.ResourceVersion},
		"spec":     map[string]any{"node": heir.Spec.Node, "nodeUID": heir.Spec.NodeUID, "journalID": heir.Spec.JournalID, "requests": nil},
	})
	if err != nil {
		return fmt.Errorf("bug: block as JSON: %w", err)
	}
	err = c.writer.Patch(ctx, b.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("block %s: %w", b.Name, err)
	}
	delete(c.seen, b.UID)
	c.log.Info("block of a node that is gone given to one that has a part", "block", string(b.Spec.CIDR), "from", b.Spec.Node, "to", heir.Spec.Node)
	return tell(ctx, c.writer, b, []warning{{"inherited", ReasonBlockInherited, fmt.Sprintf(
		"node %s (uid %s) has been gone for %s: the block is of node %s now, which has %s of it", b.Spec.Node, b.Spec.NodeUID, c.grace, heir.Spec.Node, heir.Spec.CIDR)}})
}

// delete deletes b as it was seen. An agent that takes b over meanwhile changes its
// version and so keeps it.
func (c *collector) delete(ctx context.Context, b *koratv1.Block) error {
	version := b.ResourceVersion
	err := c.writer.Delete(ctx, b, client.Preconditions{UID: &b.UID, ResourceVersion: &version})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("block %s: %w", b.Name, err)
	}
	delete(c.seen, b.UID)
	c.log.Info("block of a node that is gone deleted", "block", string(b.Spec.CIDR), "node", b.Spec.Node, "uid", b.Spec.NodeUID)
	return tell(ctx, c.writer, b, []warning{{"collected", ReasonBlockCollected, fmt.Sprintf(
		"node %s (uid %s) has been gone for %s: the block is deleted", b.Spec.Node, b.Spec.NodeUID, c.grace)}})
}

// orphans returns the blocks whose owner is no Node: there is none of the name,
// or it is another, made later under the same name.
func orphans(blocks []koratv1.Block, nodes map[string]types.UID) []koratv1.Block {
	var out []koratv1.Block
	for _, b := range blocks {
		if uid, known := nodes[b.Spec.Node]; !known || string(uid) != b.Spec.NodeUID {
			out = append(out, b)
		}
	}
	return out
}

// sightings remember since when blocks, by their UID, are orphans.
type sightings map[types.UID]sighting

type sighting struct {
	since time.Time
	owner ipam.Owner
}

// due notes what is orphaned now, forgets what is not, and returns the blocks
// that were orphaned, of the same owner, a grace ago and ever since.
func (s sightings) due(orphans []koratv1.Block, now time.Time, grace time.Duration) []koratv1.Block {
	var out []koratv1.Block
	current := map[types.UID]bool{}
	for _, b := range orphans {
		current[b.UID] = true
		first, known := s[b.UID]
		switch {
		case !known || first.owner != ownerOf(&b):
			s[b.UID] = sighting{now, ownerOf(&b)}
		case now.Sub(first.since) >= grace:
			out = append(out, b)
		}
	}
	for uid := range s {
		if !current[uid] {
			delete(s, uid)
		}
	}
	return out
}

func ownerOf(b *koratv1.Block) ipam.Owner {
	return ipam.Owner{Node: b.Spec.Node, UID: b.Spec.NodeUID, Journal: b.Spec.JournalID}
}

func nodeUIDs(ctx context.Context, r client.Reader) (map[string]types.UID, error) {
	nodes := nodeList()
	if err := r.List(ctx, nodes); err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	out := make(map[string]types.UID, len(nodes.Items))
	for i := range nodes.Items {
		out[nodes.Items[i].Name] = nodes.Items[i].UID
	}
	return out, nil
}

// claimsOf returns which pod has which address, of all pods that are not finished.
func claimsOf(ctx context.Context, r client.Reader) (map[netip.Addr]string, error) {
	claims := map[netip.Addr]string{}
	for next := ""; ; {
		var pods corev1.PodList
		if err := r.List(ctx, &pods, client.Limit(podsAtOnce), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("pods: %w", err)
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
				continue
			}
			for _, ip := range p.Status.PodIPs {
				if a, err := netip.ParseAddr(ip.IP); err == nil {
					claims[a.Unmap()] = p.Namespace + "/" + p.Name
				}
			}
		}
		if next = pods.Continue; next == "" {
			return claims, nil
		}
	}
}

// claimant returns a pod that has an address of b, and of none of its parts, or "".
func claimant(b *koratv1.Block, parts []*koratv1.Block, claims map[netip.Addr]string) string {
	cidr, err := netip.ParsePrefix(string(b.Spec.CIDR))
	if err != nil {
		return "" // the schema lets no other text pass
	}
	given := func(a netip.Addr) bool {
		return slices.ContainsFunc(parts, func(p *koratv1.Block) bool {
			cidr, err := netip.ParsePrefix(string(p.Spec.CIDR))
			return err == nil && cidr.Contains(a)
		})
	}
	found := netip.Addr{}
	for a := range claims {
		if cidr.Contains(a) && (!found.IsValid() || a.Less(found)) && !given(a) {
			found = a
		}
	}
	return claims[found]
}
