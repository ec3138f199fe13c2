// Package audit is what a node's agent says about its addresses when it is asked:
// what its journal has and what its kernel has. It is pure; felix/cniserver fills
// it, the agent serves it as JSON at /ipam, and koratctl compares it.
package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Path is where the agent serves a Node, on its HTTP address.
const Path = "/ipam"

// Node is the books of a node.
type Node struct {
	Node        string         `json:"node"`
	Journal     string         `json:"journal"` // its id
	Blocks      []netip.Prefix `json:"blocks"`  // that the journal has; none where another plugin assigns addresses
	Attachments []Attachment   `json:"attachments"`
	Interfaces  []Interface    `json:"interfaces"` // of pods, in the kernel
}

// Attachment is a pod's connection as the journal has it.
type Attachment struct {
	Pod       string       `json:"pod"` // namespace/name
	Sandbox   string       `json:"sandbox,omitempty"`
	Interface string       `json:"interface"`
	Addrs     []netip.Addr `json:"addrs"`
	// Tunnel: it is no pod's, but the address of the node's tunnel Interface.
	Tunnel bool `json:"tunnel,omitempty"`
}

// Interface is the host's end of a pod's connection.
type Interface struct {
	Name  string       `json:"name"`
	Addrs []netip.Addr `json:"addrs"` // that routes lead to
}

// Problems says where journal and kernel differ, in sentences, sorted. While a pod
// starts or stops they may for a moment.
func (n Node) Problems() []string {
	var out []string
	say := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("node %s: ", n.Node)+fmt.Sprintf(format, args...))
	}
	kernel, holder := map[string]Interface{}, map[netip.Addr]Attachment{}
	for _, i := range n.Interfaces {
		kernel[i.Name] = i
	}
	known := map[string]bool{}
	for _, at := range n.Attachments {
		known[at.Interface] = true
		i, there := kernel[at.Interface]
		if !there && !at.Tunnel {
			say("pod %s has %s in the journal, and no interface %s", at.Pod, texts(at.Addrs), at.Interface)
		}
		for _, a := range at.Addrs {
			if other, twice := holder[a]; twice {
				say("%s is of pod %s and of pod %s in the journal", a, other.Pod, at.Pod)
			}
			holder[a] = at
			if there && !slices.Contains(i.Addrs, a) {
				say("pod %s has %s in the journal, and no route leads to it through %s", at.Pod, a, at.Interface)
			}
			if len(n.Blocks) > 0 && !slices.ContainsFunc(n.Blocks, func(b netip.Prefix) bool { return b.Contains(a) }) {
				say("pod %s has %s, which is in no block of the node", at.Pod, a)
			}
		}
	}
	for _, i := range n.Interfaces {
		if !known[i.Name] {
			say("interface %s has %s in the kernel, and the journal does not know it", i.Name, texts(i.Addrs))
		}
	}
	slices.Sort(out)
	return out
}

func texts(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
