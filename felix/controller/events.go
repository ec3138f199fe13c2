package controller

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
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/convert"
)

// ReasonPolicyProblem is the reason of Events about a part of a NetworkPolicy
// that cannot be understood.
const ReasonPolicyProblem = "PolicyProblem"

const (
	component   = "korat-controller" // who says it
	maxProblems = 10                 // told of one policy: enough to find the mistake
)

// A warning is an Event to be. Equal keys about the same object are the same
// Event, which the API server keeps once, for an hour by default.
type warning struct{ key, reason, message string }

// policyWarnings are made of what is wrong with a policy, once per generation.
func policyWarnings(generation int64, problems []convert.Problem) []warning {
	var out []warning
	for i, p := range problems {
		message := p.String()
		if i == maxProblems {
			message = fmt.Sprintf("%d more problems", len(problems)-maxProblems)
		}
		out = append(out, warning{fmt.Sprint(generation, "/", i), ReasonPolicyProblem, message})
		if i == maxProblems {
			break
		}
	}
	return out
}

// conditionWarnings are made of the conditions that turned false. The version is
// that of the object as it was before, so that a repeated try says the same.
func conditionWarnings(version string, before, after []metav1.Condition) []warning {
	var out []warning
	for _, c := range after {
		if c.Status == metav1.ConditionFalse && !meta.IsStatusConditionFalse(before, c.Type) {
			out = append(out, warning{version + "/" + c.Type, c.Reason, c.Message})
		}
	}
	return out
}

// event makes the Event about o that says w.
func (w warning) event(o client.Object, ref corev1.ObjectReference, now time.Time) *corev1.Event {
	sum := sha256.Sum256([]byte(string(o.GetUID()) + "/" + w.key))
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where kubectl looks for those of cluster-scoped objects
	}
	const digits = 16
	name := o.GetName()
	name = strings.TrimRight(name[:min(len(name), 253-1-digits)], ".-") // 253 is what a name may have
	at := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: name + "." + hex.EncodeToString(sum[:digits/2])},
		InvolvedObject:      ref,
		Type:                corev1.EventTypeWarning,
		Reason:              w.reason,
		Message:             koratv1.Shorten(w.message, koratv1.MaxMessage),
		Count:               1,
		FirstTimestamp:      at,
		LastTimestamp:       at,
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
	}
}

// tell writes the warnings about o. One that was written before is left alone.
func tell(ctx context.Context, c client.Client, o client.Object, warnings []warning) error {
	if len(warnings) == 0 {
		return nil
	}
	gvk, err := apiutil.GVKForObject(o, c.Scheme())
	if err != nil {
		return err
	}
	ref := corev1.ObjectReference{
		APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
	}
	for _, w := range warnings {
		if err := c.Create(ctx, w.event(o, ref, time.Now())); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("event %s about %s %s: %w", w.reason, gvk.Kind, client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}
