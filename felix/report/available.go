package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// The reasons of the condition NetworkUnavailable of Nodes.
const (
	ReasonServes      = "KoratServes"      // pods get a network
	ReasonStarting    = "KoratStarting"    // the agent that is to give it has never been able to
	ReasonCannotServe = "KoratCannotServe" // it was, and is not any more
)

const (
	// patience is how long a node that served before may be unable to until it says so:
	// longer than an agent takes to start. Pods that run are not concerned, and those
	// that come meanwhile are tried again.
	patience = time.Minute
	// lookEvery is how often the Node is looked at, and other words are written for
	// the same reason; soon is how often somebody looks whether there is something to
	// say.
	lookEvery = time.Minute
	soon      = time.Second
)

// Availability keeps the condition NetworkUnavailable of the Node true, by which
// Kubernetes schedules no pods to it. Every field is required. It runs once.
type Availability struct {
	Core rest.Interface // of group v1
	Node string
	// Serving returns what there is to say now.
	Serving func() Serving
	Log     *slog.Logger

	have   *corev1.NodeCondition // as the API server has it, nil: none
	looked time.Time             // when it was read; zero: it has to be
	unable time.Time             // since when the node cannot serve; zero: it can
	served bool                  // in the life of this agent
}

// Serving is whether the node can give pods a network.
type Serving struct {
	// Silent: the condition is not ours to write, or nobody knows yet.
	Silent  bool
	Problem error // why it cannot; nil: it can
	// Configured: the container runtime has its configuration, so that the node served
	// in the life of an agent before.
	Configured bool
}

// Run writes until ctx ends, and leaves the condition as it is then: pods go on
// without an agent. It is a loop of its own because pods wait for what it says of a
// node that is new.
func (a *Availability) Run(ctx context.Context) error {
	tick := time.NewTicker(soon)
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, Interval)
		err := a.Keep(once, time.Now())
		cancel()
		wait := tick.C
		if err != nil && ctx.Err() == nil {
			a.Log.Warn("whether the node has a network is not told", "error", err)
			wait = time.After(Interval)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Keep looks once, and writes what is not as it should be.
func (a *Availability) Keep(ctx context.Context, now time.Time) error {
	s := a.Serving()
	switch {
	case s.Silent:
		return nil
	case s.Problem == nil:
		a.served, a.unable = true, time.Time{}
	case a.unable.IsZero():
		a.unable = now
	}
	if now.Sub(a.looked) >= lookEvery {
		if err := a.look(ctx, now); err != nil {
			return fmt.Errorf("node %s: %w", a.Node, err)
		}
	}
	want := a.decide(s, now)
	if want == nil || a.says(want, now) {
		return nil
	}
	want.Type, want.LastHeartbeatTime, want.LastTransitionTime = corev1.NodeNetworkUnavailable, metav1.NewTime(now), metav1.NewTime(now)
	if a.have != nil && a.have.Status == want.Status {
		want.LastTransitionTime = a.have.LastTransitionTime
	}
	if err := a.write(ctx, want); err != nil {
		a.looked = time.Time{}
		return fmt.Errorf("status of node %s: %w", a.Node, err)
	}
	a.have = want
	return nil
}

// decide returns what the condition is to be; nil: what it is. Of a node that served it
// says no worse before patience is over.
func (a *Availability) decide(s Serving, now time.Time) *corev1.NodeCondition {
	before := a.have != nil && a.have.Status == corev1.ConditionFalse || a.have == nil && s.Configured
	switch {
	case s.Problem == nil:
		return &corev1.NodeCondition{Status: corev1.ConditionFalse, Reason: ReasonServes, Message: "Korat gives pods a network here"}
	case before && now.Sub(a.unable) < patience:
		return nil
	}
	reason := ReasonStarting
	if a.served {
		reason = ReasonCannotServe
	}
	return &corev1.NodeCondition{Status: corev1.ConditionTrue, Reason: reason, Message: koratv1.Shorten(s.Problem.Error(), koratv1.MaxMessage)}
}

// says reports whether the condition says want already, or did in other words a short
// while ago: problems say how long they last.
func (a *Availability) says(want *corev1.NodeCondition, now time.Time) bool {
	return a.have != nil && a.have.Status == want.Status && a.have.Reason == want.Reason &&
		(a.have.Message == want.Message || now.Sub(a.have.LastHeartbeatTime.Time) < lookEvery)
}

// look reads the condition.
func (a *Availability) look(ctx context.Context, now time.Time) error {
	n := &corev1.Node{}
	if err := a.Core.Get().Resource("nodes").Name(a.Node).Do(ctx).Into(n); err != nil {
		return err
	}
	a.have, a.looked = nil, now
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			a.have = &c
		}
	}
	return nil
}

// write puts c into the list of conditions, in which each type is once.
func (a *Availability) write(ctx context.Context, c *corev1.NodeCondition) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []*corev1.NodeCondition{c}}})
	if err != nil {
		return errors.Join(errors.New("bug: a condition that is no JSON"), err)
	}
	return a.Core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(a.Node).SubResource("status").Body(patch).Do(ctx).Error()
}
