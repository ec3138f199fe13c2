package report

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// The reasons of Events about a NodeNetwork.
const (
	ReasonSessionsDown = "BGPSessionsDown"
	ReasonSessionsUp   = "BGPSessionsUp"
	// ReasonNotEncrypted and ReasonEncrypted tell what the condition Encrypted came
	// to say.
	ReasonNotEncrypted = "NotEncrypted"
	ReasonEncrypted    = "Encrypted"
)

const (
	// quiet is the least time between two Events: what happens meanwhile is in the
	// next one. A cluster whose router flaps writes no more than that for each node.
	quiet = 30 * time.Second
	// named is how many of many are named.
	named = 5
	// agent is who says it.
	agent = "korat-agent"
)

// teller makes Events of sessions that were lost or came up, and of encryption.
type teller struct {
	client   rest.Interface // of group v1
	told     map[string]koratv1.SessionState
	last     time.Time
	informed bool // told is of something
	// encrypted is what of the condition of that name was told; empty: nothing asked
	// for encryption.
	encrypted metav1.ConditionStatus
}

// tell compares the sessions of n with those that were told, and writes at most one
// Event of each sort. It does nothing before quiet is over.
func (t *teller) tell(ctx context.Context, n *koratv1.NodeNetwork, now time.Time) error {
	if t.informed && now.Sub(t.last) < quiet {
		return nil
	}
	down, up := t.changes(n.Status.Sessions)
	turned := t.turned(n.Status.Conditions)
	if len(down)+len(up) == 0 && turned == nil {
		return nil
	}
	t.last = now
	if turned != nil {
		if err := t.encryption(ctx, n, *turned, now); err != nil {
			return err
		}
	}
	if len(down) > 0 {
		if err := t.sessions(ctx, n, corev1.EventTypeWarning, ReasonSessionsDown, down, now); err != nil {
			return err
		}
	}
	if len(up) > 0 {
		return t.sessions(ctx, n, corev1.EventTypeNormal, ReasonSessionsUp, up, now)
	}
	return nil
}

// changes says in words what changed, and takes it for told: an Event that cannot
// be written is lost, as Events may be. A session that comes new is no change until
// it is up.
func (t *teller) changes(sessions []koratv1.SessionStatus) (down, up []string) {
	is := make(map[string]koratv1.SessionState, len(sessions))
	for _, s := range sessions {
		key := s.Peer + " (" + s.Address + ")"
		is[key] = s.State
		was, known := t.told[key]
		switch {
		case s.State == koratv1.SessionEstablished && was != s.State && t.informed:
			up = append(up, key)
		case s.State != koratv1.SessionEstablished && known && was == koratv1.SessionEstablished:
			down = append(down, key+": "+orUnknown(s.LastError))
		}
	}
	t.told, t.informed = is, true
	return down, up
}

// turned returns the condition Encrypted if it says something else than was told:
// that all is well nobody needs to hear first.
func (t *teller) turned(conditions []metav1.Condition) *metav1.Condition {
	c := meta.FindStatusCondition(conditions, koratv1.ConditionEncrypted)
	if c == nil {
		t.encrypted = ""
		return nil
	}
	was := t.encrypted
	t.encrypted = c.Status
	if c.Status == was || was == "" && c.Status == metav1.ConditionTrue {
		return nil
	}
	return c
}

func (t *teller) encryption(ctx context.Context, n *koratv1.NodeNetwork, c metav1.Condition, now time.Time) error {
	if c.Status == metav1.ConditionTrue {
		return t.write(ctx, n, corev1.EventTypeNormal, ReasonEncrypted, "every other node is reached encrypted", now)
	}
	return t.write(ctx, n, corev1.EventTypeWarning, ReasonNotEncrypted, c.Message, now)
}

func (t *teller) sessions(ctx context.Context, n *koratv1.NodeNetwork, kind, reason string, sessions []string, now time.Time) error {
	return t.write(ctx, n, kind, reason, listed(sessions), now)
}

// listed names some of many.
func listed(names []string) string {
	text := strings.Join(names[:min(len(names), named)], "; ")
	if more := len(names) - named; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

func (t *teller) write(ctx context.Context, n *koratv1.NodeNetwork, kind, reason, message string, now time.Time) error {
	sum := sha256.Sum256(fmt.Append(nil, n.UID, reason, now.UnixNano()))
	at := metav1.NewTime(now)
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: eventName(n.Name, hex.EncodeToString(sum[:8]))},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: koratv1.GroupVersion.String(), Kind: "NodeNetwork", Name: n.Name, UID: n.UID,
		},
		Type: kind, Reason: reason, Message: koratv1.Shorten(message, koratv1.MaxMessage), Count: 1,
		FirstTimestamp: at, LastTimestamp: at,
		Source: corev1.EventSource{Component: agent, Host: n.Name}, ReportingController: agent, ReportingInstance: n.Name,
	}
	err := t.client.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("event %s about NodeNetwork %s: %w", reason, n.Name, err)
	}
	return nil
}

// eventName is at most as long as a name may be.
func eventName(node, suffix string) string {
	const longest = 253
	return strings.TrimRight(node[:min(len(node), longest-1-len(suffix))], ".-") + "." + suffix
}
