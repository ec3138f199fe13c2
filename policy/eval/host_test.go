package eval_test

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

// host is a node with a pod and an endpoint for every other interface, whose
// chains the test fills in; each chain has one rule about one port.
func host() *eval.Host {
	open := eval.Endpoint{Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow}}
	return &eval.Host{
		PodPrefix: "pod",
		Pods:      map[string]*eval.Attachment{"pod1": {Addrs: []netip.Addr{addr("10.0.0.1")}, Endpoint: open}},
		Endpoints: map[string]*eval.HostChains{eval.AnyInterface: {Normal: open, Forward: open, PreDNAT: open, Untracked: open}},
		Rules:     eval.HostRules{PodToHost: policy.Allow},
		Evaluator: &eval.Evaluator{
			// The name of a program is what it says of port 80.
			Program: func(id ir.ProgramID) *ir.Program {
				action := map[string]policy.Action{"allow": policy.Allow, "deny": policy.Deny}[id.Policy.Name]
				return &ir.Program{ID: id, Rules: []ir.Rule{{Action: action, Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 80, Last: 80}}}}}
			},
		},
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// says is a chain whose one program says name about port 80, and end about the rest.
func says(name string, end policy.Action) ir.Chain {
	id := ir.ProgramID{Policy: policy.Key{Name: name}}
	return ir.Chain{Tiers: []ir.Tier{{Name: "t", Programs: []ir.ProgramID{id}, End: policy.Pass}}, Default: end}
}

func TestTheWayThroughANode(t *testing.T) {
	const out, pod = "192.0.2.1", "10.0.0.1"
	in, through, leave := eval.Way{In: "eth0"}, eval.Way{In: "eth0", Out: "pod1"}, eval.Way{Out: "eth0"}
	for _, c := range []struct {
		name   string
		change func(h *eval.Host, any *eval.HostChains)
		way    eval.Way
		src    string
		port   uint16
		state  eval.State
		want   policy.Action
		at     eval.Point // of the last step
	}{
		{"normal decides what ends on the node", func(_ *eval.Host, e *eval.HostChains) { e.Normal.Ingress.Default = policy.Deny }, in, out, 80, eval.New, policy.Deny, eval.AtHost},
		{"but not what is passed on", func(_ *eval.Host, e *eval.HostChains) { e.Normal.Ingress.Default = policy.Deny }, through, out, 80, eval.New, policy.Allow, eval.AtPod},
		{"nor what is established", func(_ *eval.Host, e *eval.HostChains) { e.Normal.Ingress.Default = policy.Deny }, in, out, 80, eval.Established, policy.Allow, eval.AtHost},
		{"nor failsafes", func(h *eval.Host, e *eval.HostChains) {
			e.Normal.Ingress.Default, h.Rules.FailsafeIn = policy.Deny, []eval.Failsafe{{Protocol: policy.TCP, Port: 80, Net: netip.MustParsePrefix("192.0.2.0/24")}}
		}, in, out, 80, eval.New, policy.Allow, eval.AtHost},
		{"that are of this network", func(h *eval.Host, e *eval.HostChains) {
			e.Normal.Ingress.Default, h.Rules.FailsafeIn = policy.Deny, []eval.Failsafe{{Protocol: policy.TCP, Port: 80, Net: netip.MustParsePrefix("198.51.100.0/24")}}
		}, in, out, 80, eval.New, policy.Deny, eval.AtHost},
		{"forward has no failsafes", func(h *eval.Host, e *eval.HostChains) {
			e.Forward.Ingress.Default, h.Rules.FailsafeIn = policy.Deny, []eval.Failsafe{{Protocol: policy.TCP, Port: 80}}
		}, through, out, 80, eval.New, policy.Deny, eval.AtForward},
		{"before translation a rule lets in", func(_ *eval.Host, e *eval.HostChains) {
			e.PreDNAT.Ingress, e.Normal.Ingress.Default = says("allow", policy.Allow), policy.Deny
		}, in, out, 80, eval.New, policy.Allow, eval.AtPreDNAT},
		{"and what no rule knows goes on", func(_ *eval.Host, e *eval.HostChains) {
			e.PreDNAT.Ingress, e.Normal.Ingress.Default = says("allow", policy.Deny), policy.Deny
		}, in, out, 81, eval.New, policy.Deny, eval.AtHost},
		{"before translation the pod's policy is not overruled", func(h *eval.Host, e *eval.HostChains) {
			e.PreDNAT.Ingress, h.Pods["pod1"].Ingress.Default = says("allow", policy.Allow), policy.Deny
		}, through, out, 80, eval.New, policy.Deny, eval.AtPod},
		{"untracked asks established packets too", func(_ *eval.Host, e *eval.HostChains) {
			e.Untracked.Ingress = says("deny", policy.Allow)
		}, in, out, 80, eval.Established, policy.Deny, eval.AtUntracked},
		{"what is untracked is new to pods", func(h *eval.Host, e *eval.HostChains) {
			e.Untracked.Ingress, h.Pods["pod1"].Ingress.Default = says("allow", policy.Allow), policy.Deny
		}, through, out, 80, eval.Established, policy.Deny, eval.AtPod},
		{"a pod's packet meets no endpoint of any interface", func(_ *eval.Host, e *eval.HostChains) { e.Normal.Ingress.Default = policy.Deny }, eval.Way{In: "pod1"}, pod, 80, eval.New, policy.Allow, eval.AtPod},
		{"but what the node lets in", func(h *eval.Host, _ *eval.HostChains) { h.Rules.PodToHost = policy.Deny }, eval.Way{In: "pod1"}, pod, 80, eval.New, policy.Deny, eval.AtNode},
		{"replies of pods come in", func(h *eval.Host, _ *eval.HostChains) { h.Rules.PodToHost = policy.Deny }, eval.Way{In: "pod1"}, pod, 80, eval.Established, policy.Allow, eval.AtPod},
		{"sources are a pod's own", func(*eval.Host, *eval.HostChains) {}, eval.Way{In: "pod1"}, out, 80, eval.Established, policy.Deny, eval.AtSource},
		{"an unknown pod is closed", func(*eval.Host, *eval.HostChains) {}, eval.Way{In: "eth0", Out: "pod2"}, out, 80, eval.New, policy.Deny, eval.AtPod},
		{"a pod reaches itself", func(h *eval.Host, _ *eval.HostChains) {
			h.Pods["pod1"].Ingress.Default, h.Pods["pod1"].Egress.Default = policy.Deny, policy.Deny
		}, eval.Way{In: "pod1", Out: "pod1"}, pod, 80, eval.New, policy.Allow, eval.AtPod},
		{"egress of the node is its own", func(_ *eval.Host, e *eval.HostChains) { e.Normal.Egress.Default = policy.Deny }, leave, out, 80, eval.New, policy.Deny, eval.AtHost},
		{"services do not loop", func(h *eval.Host, _ *eval.HostChains) {
			h.Services = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, through, out, 80, eval.New, policy.Deny, eval.AtServices},
	} {
		h := host()
		c.change(h, h.Endpoints[eval.AnyInterface])
		c.way.Packet = eval.Packet{Src: addr(c.src), Dst: addr(pod), Protocol: policy.TCP, SrcPort: 40000, DstPort: c.port, State: c.state}
		got := h.Cross(c.way)
		if got.Action != c.want || len(got.Steps) == 0 || got.Steps[len(got.Steps)-1].At != c.at {
			t.Errorf("%s: %s, want %s %s", c.name, got, c.want, c.at)
		}
	}
}

func TestTheLoopbackAndPodsAreNotAnyInterface(t *testing.T) {
	h := host()
	h.Endpoints[eval.AnyInterface].Normal.Ingress.Default = policy.Deny
	h.Endpoints[eval.AnyInterface].Normal.Egress.Default = policy.Deny
	p := eval.Packet{Src: addr("192.0.2.1"), Dst: addr("192.0.2.1"), Protocol: policy.TCP}
	for _, w := range []eval.Way{{In: "lo", Packet: p}, {Out: "lo", Packet: p}, {Out: "pod1", Packet: p}} {
		if got := h.Cross(w); got.Action != policy.Allow || len(got.Steps) > 0 {
			t.Errorf("%+v: %s", w, got)
		}
	}
}

func TestNeighboursFindANodeThatIsClosed(t *testing.T) {
	h := host()
	e := h.Endpoints[eval.AnyInterface]
	e.Normal.Ingress.Default, e.Normal.Egress.Default = policy.Deny, policy.Deny
	e.PreDNAT.Ingress, e.Untracked = says("deny", policy.Allow), eval.Endpoint{Ingress: says("deny", policy.Allow), Egress: says("deny", policy.Allow)}
	for kind, want := range map[uint8]policy.Action{128: policy.Deny, 130: policy.Allow, 134: policy.Allow, 135: policy.Allow, 136: policy.Allow, 137: policy.Deny, 143: policy.Allow} {
		p := eval.Packet{Src: addr("fe80::1"), Dst: addr("fe80::2"), Protocol: policy.ICMPv6, Type: kind}
		for _, w := range []eval.Way{{In: "eth0", Packet: p}, {Out: "eth0", Packet: p}} {
			if got := h.Cross(w); got.Action != want {
				t.Errorf("type %d, in %q, out %q: %s", kind, w.In, w.Out, got)
			}
		}
	}
}
