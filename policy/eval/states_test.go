package eval

import (
	"testing"

	"github.com/koratnet/korat/policy"
)

// What the state of a connection decides, and what is left to policy.

const denyAll = "podSelector: {}, policyTypes: [Ingress, Egress]"

// in gives a packet another state.
func in(p Packet, s State) Packet {
	p.State = s
	return p
}

func TestItem26AnAddressThatMovesHasThePolicyOfItsNewPod(t *testing.T) {
	closed := knp("closed", "podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress]")
	c := shop(t, closed)
	p := packetOf(t, c, "shell>web 80/TCP")
	if v := c.Verdict(p); v.Action != policy.Allow {
		t.Fatalf("before: %s", v)
	}
	var web, db *Pod
	for i := range c.Pods {
		switch c.Pods[i].Name {
		case "web":
			web = &c.Pods[i]
		case "db":
			db = &c.Pods[i]
		}
	}
	web.Addrs, db.Addrs = db.Addrs, web.Addrs
	if v := c.Verdict(p); v.Action != policy.Deny {
		t.Errorf("after: %s", v)
	}
	// Of a connection to the former pod nothing is asked: who takes an address over
	// has to end what conntrack knows of it.
	if v := c.Verdict(in(p, Established)); v.Action != policy.Allow {
		t.Errorf("of a connection that is open: %s", v)
	}
}

func TestItem27OpenConnectionsSurviveAChangeOfPolicy(t *testing.T) {
	c := shop(t, knp("closed", denyAll))
	p := packetOf(t, c, "shell>web 80/TCP")
	for state, want := range map[State]policy.Action{New: policy.Deny, Established: policy.Allow, Related: policy.Allow, Invalid: policy.Deny} {
		if v := c.Verdict(in(p, state)); v.Action != want {
			t.Errorf("state %d: %s, want %s", state, v, want)
		}
	}
}

func TestItem28RepliesPassByTheirConnectionAndWhatBelongsToNoneDoesNot(t *testing.T) {
	c := shop(t, knp("answers-only", "podSelector: {matchLabels: {role: web}}, ingress: [{}], policyTypes: [Ingress, Egress]"))
	reply := packetOf(t, c, "web>shell 40000/TCP")
	if v := c.Verdict(reply); v.Action != policy.Deny || v.Egress.Cause != ByTierEnd {
		t.Errorf("a connection of its own: %s", v)
	}
	if v := c.Verdict(in(reply, Established)); v.Action != policy.Allow || v.Egress.Cause != ByState {
		t.Errorf("a reply: %s", v)
	}
	open := shop(t)
	if v := open.Verdict(in(packetOf(t, open, "shell>web 80/TCP"), Invalid)); v.Action != policy.Deny {
		t.Errorf("invalid where everything is open: %s", v)
	}
}

func TestItem29SCTPIsJudgedAsTheOtherProtocolsAre(t *testing.T) {
	c := shop(t, knp("signalling", "podSelector: {matchLabels: {role: web}}, ingress: [{ports: [{protocol: SCTP, port: 3868}]}]"))
	judge(t, c, "shell>web 3868/SCTP", "!shell>web 3869/SCTP", "!shell>web 3868/TCP", "!shell>web 3868/UDP")
	if v := c.Verdict(in(packetOf(t, c, "shell>web 3868/SCTP"), Invalid)); v.Action != policy.Deny {
		t.Errorf("what conntrack cannot place: %s", v)
	}
}
