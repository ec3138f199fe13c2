package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// blocksOf returns the journals of the node's blocks, by their names.
func blocksOf(ctx context.Context, node string) (map[string]string, error) {
	var list koratv1.BlockList
	if err := cluster.Client.List(ctx, &list); err != nil {
		return nil, err
	}
	journals := map[string]string{}
	for _, b := range list.Items {
		if b.Spec.Node == node {
			journals[b.Name] = b.Spec.JournalID
		}
	}
	return journals, nil
}

// An agent whose state directory was lost finds out from the kernel and the API
// server what runs, and takes its node's blocks over.
func TestALostStateDirectoryCostsNoPacketAndNoBlock(t *testing.T) {
	namespace(t, cluster, "lost")
	from, to := start(t, cluster, podOn("a1", "lost", "p", nil)), start(t, cluster, podOn("b1", "lost", "q", nil))
	eventually(t, "path between the racks", func(context.Context) error {
		return errors.Join(reach(cluster, "lost/p", to), reach(cluster, "lost/q", from))
	})
	before, err := blocksOf(t.Context(), "a1")
	if err != nil || len(before) == 0 {
		t.Fatalf("blocks %v, %v", before, err)
	}
	stopDeletions, stopPings := routeDeletions(t, cluster, "a1"), pings(t, cluster, "lost/q", from)
	if err := cluster.KillAgent(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(cluster.Machine("a1").Path("/var/lib/korat")); err != nil {
		t.Fatal(err)
	}
	if err := cluster.StartAgent(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "blocks of a1 are taken over", func(ctx context.Context) error {
		after, err := blocksOf(ctx, "a1")
		for name, journal := range before {
			if after[name] == journal || after[name] == "" || len(after) != len(before) {
				return errors.Join(fmt.Errorf("before %v, now %v", before, after), err)
			}
		}
		return err
	})
	if addr := start(t, cluster, podOn("a1", "lost", "new", nil)); addr == from {
		t.Errorf("%s was given twice", addr)
	}
	if sent, lost := stopPings(); lost != 0 {
		t.Errorf("%d of %d packets lost", lost, sent)
	}
	if deleted := stopDeletions(); len(deleted) != 0 {
		t.Errorf("routes were deleted: %v", deleted)
	}
}
