// Package wire is what the CNI plugin and the agent say to each other over a
// connection to the agent's unix socket: a Call, and what the plugin prints. The
// plugin links this package alone, so it depends on nothing heavy: whoever starts a
// pod waits for the plugin to start.
package wire

import "net/netip"

// DefaultSocket is where the agent listens unless told otherwise.
const DefaultSocket = "/run/korat/cni.sock"

// DefaultNetwork is the name of the configuration that the agent writes.
const DefaultNetwork = "korat"

// TombstoneDir is the directory beside the socket in which the plugin leaves,
// as one JSON Request a file, what it could not tell while the agent was away.
const TombstoneDir = "gone"

// Command is a CNI verb (https://www.cni.dev/docs/spec/).
type Command string

// The verbs.
const (
	Add    Command = "ADD"
	Del    Command = "DEL"
	Check  Command = "CHECK"
	Status Command = "STATUS"
	GC     Command = "GC"
)

// Versions are those of the CNI specification that Korat speaks, oldest first.
var Versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// Request is what a Call asks. The plugin leaves it as a tombstone.
type Request struct {
	Command     Command `json:"command"`
	Network     string  `json:"network,omitempty"` // name of the plugin's configuration; empty: DefaultNetwork
	ContainerID string  `json:"containerID,omitempty"`
	Netns       string  `json:"netns,omitempty"` // path; may be empty in DEL
	IfName      string  `json:"ifName,omitempty"`
	// Namespace and Pod name the pod. Without them (a runtime that is not
	// Kubernetes) the plugin puts the container's ID into Pod.
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	PodUID    string `json:"podUID,omitempty"` // empty if the runtime does not say
	// Pools4 and Pools6 name the pools of the plugin's configuration, in ADD.
	Pools4 []string `json:"pools4,omitempty"`
	Pools6 []string `json:"pools6,omitempty"`
	// Given are the addresses that another plugin for IPAM has assigned, in ADD:
	// at most one of each family. Empty: Korat assigns.
	Given []netip.Addr `json:"given,omitempty"`
	// Addrs are the addresses of the previous result, in CHECK.
	Addrs []netip.Addr `json:"addrs,omitempty"`
	// Valid are the attachments of Network that exist, in GC: all others of it are removed.
	Valid []Attachment `json:"valid,omitempty"`
}

// Attachment names one interface of one container.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// Error is a CNI error as it is printed: the codes are those of the specification.
type Error struct {
	Code    uint   `json:"code"`
	Message string `json:"msg"`
	Details string `json:"details,omitempty"`
}

// Error returns message and details.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Message
	}
	return e.Message + ": " + e.Details
}

// Gateways of pods: addresses that exist on no interface and that the host
// side of every veth answers for. They are link-local, so a pod's routes are the
// same on every node and survive whatever the node's addresses do.
var (
	Gateway4 = netip.MustParseAddr("169.254.1.1")
	Gateway6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee") // EUI-64 of HostMAC
)

// HostMAC is the hardware address of the host side of every veth. A fixed one
// makes Gateway6 fixed; links are point to point, so it need not be unique.
const HostMAC = "ee:ee:ee:ee:ee:ee"
