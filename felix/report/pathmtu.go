package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/pathmtu"
)

// The reasons of Events about the MTU of the ways to other nodes.
const (
	ReasonPathMTUTooSmall = "PathMTUTooSmall"
	ReasonPathMTUGood     = "PathMTUGood"
)

// pathCondition says in words what was found on the ways to other nodes.
func pathCondition(f Facts, now metav1.Time) metav1.Condition {
	c := metav1.Condition{Type: koratv1.ConditionPathMTU, Status: metav1.ConditionTrue, LastTransitionTime: now}
	s := f.PathMTU
	room := func(x pathmtu.Finding) int { return x.Passes - f.around(x) } // for packets of pods
	worst := slices.MinFunc(append(s.Findings, pathmtu.Finding{Passes: 1 << 16}), func(a, b pathmtu.Finding) int { return room(a) - room(b) })
	hole := slices.ContainsFunc(s.Findings, func(x pathmtu.Finding) bool {
		return x.Outcome == pathmtu.BlackHole && room(x) < f.MTU
	})
	largest := f.MTU + f.around(worst)
	smaller := fmt.Sprintf("packets larger than %d bytes do not reach %s", worst.Passes, listedNodes(s.Findings))
	if worst.Tunnel != "" {
		smaller += " through " + worst.Tunnel
	}
	mend := fmt.Sprintf("mend the network between the nodes, or set mtu in a NodeConfiguration to %d", room(worst))
	switch {
	case len(s.Findings) > 0 && f.MTU <= room(worst):
		c.Reason = koratv1.ReasonPodsFit
		c.Message = fmt.Sprintf("%s; those of pods have %d at most, with encapsulation %d", smaller, f.MTU, largest)
	case hole:
		c.Status, c.Reason = metav1.ConditionFalse, koratv1.ReasonBlackHole
		c.Message = fmt.Sprintf("%s and vanish, and those of pods have up to %d: %s", smaller, largest, mend)
	case len(s.Findings) > 0:
		c.Status, c.Reason = metav1.ConditionFalse, koratv1.ReasonNarrow
		c.Message = fmt.Sprintf("%s, as a router says, and those of pods have up to %d: %s", smaller, largest, mend)
	case s.Clear == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, koratv1.ReasonNotTried, "no other node has answered an echo request yet"
	default:
		c.Reason, c.Message = koratv1.ReasonFullSize, "packets of the full size reach every node that was tried"
		if s.Unanswered > 0 {
			c.Message = "packets of the full size reach every node that answers echo requests"
		}
	}
	c.Message = koratv1.Shorten(c.Message, koratv1.MaxMessage)
	return c
}

// around is what is around packets of pods on the way that x is about.
func (f Facts) around(x pathmtu.Finding) int {
	if x.Tunnel != "" {
		return 0
	}
	return f.Overhead
}

// listedNodes names some of the nodes that findings are about.
func listedNodes(findings []pathmtu.Finding) string {
	var names []string
	for _, f := range findings {
		names = append(names, f.Node)
	}
	names = slices.Compact(names) // findings are in the order of nodes
	if more := len(names) - named; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:named], ", "), more)
	}
	return strings.Join(names, ", ")
}

// tellPath writes an Event when what was said of the ways to other nodes becomes worse
// or good.
func (t *teller) tellPath(ctx context.Context, was []metav1.Condition, n *koratv1.NodeNetwork, now time.Time) error {
	kind, reason, message := pathEvent(meta.FindStatusCondition(was, koratv1.ConditionPathMTU), meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionPathMTU))
	if reason == "" {
		return nil
	}
	return t.write(ctx, n, kind, reason, message, now)
}

// pathEvent returns the Event that a change of the condition is worth; an empty reason:
// none.
func pathEvent(was, is *metav1.Condition) (kind, reason, message string) {
	bad := func(c *metav1.Condition) bool { return c != nil && c.Status == metav1.ConditionFalse }
	switch {
	case bad(is) && !bad(was):
		return corev1.EventTypeWarning, ReasonPathMTUTooSmall, is.Message
	case bad(was) && is != nil && is.Status == metav1.ConditionTrue:
		return corev1.EventTypeNormal, ReasonPathMTUGood, is.Message
	}
	return "", "", ""
}
