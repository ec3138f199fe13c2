package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// asker is who asks in the name of the controller. A Node of this name would be
// told from it by the two others, which no agent has.
const asker = "korat-controller"

// question is what becomes of a block whose owner is no Node any more.
type question int

const (
	unasked question = iota // its owner is to be asked whether it lives
	awaited                 // it was, and has time
	answers                 // it lives
	gone                    // it does not
)

// questionOf says what is to be done about b: its owner, which may run on although
// its Node was deleted, is asked for all of the block. An agent refuses, and gives
// the block back by itself when it is empty. It has patience to answer.
func questionOf(b *koratv1.Block, now time.Time, patience time.Duration) (q question, says string) {
	i := slices.IndexFunc(b.Spec.Requests, ours)
	switch {
	case i < 0:
		return unasked, ""
	case b.Spec.Requests[i].Refused != "":
		return answers, b.Spec.Requests[i].Refused
	case now.Sub(time.Unix(0, b.Spec.Requests[i].Number)) < patience:
		return awaited, ""
	}
	return gone, ""
}

func ours(r koratv1.BlockRequest) bool { return r.JournalID == asker }

// answered reports whether the owner of b was asked and did not answer: it does not
// live. One that answers is asked again, until it does not.
func (c *collector) answered(ctx context.Context, b *koratv1.Block, now time.Time) (dead bool, err error) {
	q, says := questionOf(b, now, c.grace/looks/2)
	switch q {
	case gone:
		return true, nil
	case awaited:
		return false, nil
	case answers:
		err = tell(ctx, c.writer, b, []warning{{"alive", ReasonBlockKept, fmt.Sprintf(
			"there is no Node %s (uid %s), and the block stays because its agent answers: %s", b.Spec.Node, b.Spec.NodeUID, says)}})
		if err != nil {
			return false, err
		}
	}
	requests := append(slices.DeleteFunc(slices.Clone(b.Spec.Requests), ours), koratv1.BlockRequest{
		CIDR: b.Spec.CIDR, Node: asker, NodeUID: asker, JournalID: asker, Number: now.UnixNano(),
	})
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": b.UID, "resourceVersion": b.ResourceVersion},
		"spec":     map[string]any{"requests": requests},
	})
	if err != nil {
		return false, fmt.Errorf("bug: block as JSON: %w", err)
	}
	err = c.writer.Patch(ctx, b.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // the next look sees more
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for block %s: %w", b.Name, err)
	}
	return false, nil
}
