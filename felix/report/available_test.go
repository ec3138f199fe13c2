package report

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestWhatKubernetesIsToldOfANode: a node that served is not worse for the time that an
// agent takes to start.
func TestWhatKubernetesIsToldOfANode(t *testing.T) {
	const short, long = patience - time.Second, patience
	says := func(s corev1.ConditionStatus, reason string) *corev1.NodeCondition {
		return &corev1.NodeCondition{Status: s, Reason: reason}
	}
	broken := errors.New("route: not in sync yet")
	for name, c := range map[string]struct {
		have       *corev1.NodeCondition
		problem    error
		configured bool
		served     bool // in this life
		lasts      time.Duration
		want       string // empty: nothing
	}{
		"a new node that serves":                    {want: "False KoratServes"},
		"a new node that does not yet":              {problem: broken, want: "True KoratStarting"},
		"one that said so":                          {have: says("True", ReasonStarting), problem: broken, lasts: short, want: "True KoratStarting"},
		"and serves now":                            {have: says("True", ReasonStarting), want: "False KoratServes"},
		"an agent that starts again":                {have: says("False", ReasonServes), problem: broken, lasts: short},
		"and does not get through":                  {have: says("False", ReasonServes), problem: broken, lasts: long, want: "True KoratStarting"},
		"an agent that told nothing, as of before":  {problem: broken, configured: true, lasts: short},
		"and does not get through either":           {problem: broken, configured: true, lasts: long, want: "True KoratStarting"},
		"a trouble that passes":                     {have: says("False", ReasonServes), problem: broken, served: true, lasts: short},
		"a trouble that lasts":                      {have: says("False", ReasonServes), problem: broken, served: true, lasts: long, want: "True KoratCannotServe"},
		"a restart in the middle of it":             {have: says("True", ReasonCannotServe), problem: broken, want: "True KoratStarting"},
		"another network that was there":            {have: says("False", "CalicoIsUp"), problem: broken, lasts: short},
		"another network that served":               {have: says("False", "CalicoIsUp"), want: "False KoratServes"},
		"a cloud that waits for a network's answer": {have: says("True", "NoRouteCreated"), want: "False KoratServes"},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			a := &Availability{have: c.have, served: c.served}
			if c.problem != nil {
				a.unable = now.Add(-c.lasts)
			}
			got := ""
			if k := a.decide(Serving{Problem: c.problem, Configured: c.configured}, now); k != nil {
				got = string(k.Status) + " " + k.Reason
			}
			if got != c.want {
				t.Errorf("says %q, want %q", got, c.want)
			}
		})
	}
}

// TestAProblemThatCountsIsNotWrittenEverySecond.
func TestAProblemThatCountsIsNotWrittenEverySecond(t *testing.T) {
	now := time.Unix(1000, 0)
	a := &Availability{have: &corev1.NodeCondition{Status: "True", Reason: ReasonCannotServe, Message: "failing for 61s"}}
	a.have.LastHeartbeatTime.Time = now
	want := *a.have
	want.Message = "failing for 62s"
	for after, says := range map[time.Duration]bool{time.Second: true, lookEvery: false} {
		if got := a.says(&want, now.Add(after)); got != says {
			t.Errorf("after %s the condition says it: %v, want %v", after, got, says)
		}
	}
	want.Reason = ReasonStarting
	if a.says(&want, now) {
		t.Error("another reason is not written")
	}
}
