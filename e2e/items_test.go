package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// items are the details of policy, of the life of pods and of routes between nodes
// that are easily got wrong. They are numbered; a test that holds one has its number
// in its name ("TestItem36…", "TestItems48To51And55…"), so that `grep -r Item36` finds
// them.
var items = map[int]string{
	1:  "a pod's address is alone in its network, and its host side answers for all",
	2:  "the gateway of IPv6 is the host side's link-local address",
	3:  "parameters of the host side, which the agent keeps",
	4:  "pods do not forward",
	5:  "every host side has the same hardware address",
	6:  "a late DEL of an earlier sandbox leaves its successor alone",
	7:  "what a starting agent finds is not swept before all is known",
	8:  "the target of a migration draws no traffic",
	9:  "both ends of a veth have the MTU",
	10: "the MTU follows the uplink, in running pods too",
	11: "results name both interfaces, for the plugins that follow",
	12: "hostPort is judged by the port of the pod",
	13: "an ADD that failed gives back what it took, and nothing else",
	14: "DEL succeeds whatever is missing",
	15: "DEL frees what every sandbox of a pod held",
	16: "CHECK, STATUS and GC do what they say",
	17: "nothing of the configuration is logged",
	18: "the configuration is written last and kept",
	19: "a burst of ADDs succeeds",
	20: "ADD answers when policy is in force",
	21: "a pod that finished has given its address back, though its object stays",
	22: "a terminating pod keeps address and policy until its sandbox goes",
	23: "the address of a new pod counts before the API server knows it",
	24: "a pod in its node's network is no endpoint",
	25: "two pods may have one address for a moment",
	26: "an address that moves has the policy of its new pod",
	27: "connections that are open survive a change of policy",
	28: "replies pass by the connection they belong to, and what belongs to none is dropped",
	29: "SCTP is judged as the other protocols are",
	30: "each direction is isolated for itself, and which ones a policy isolates",
	31: "empty and absent lists",
	32: "whom a peer selects",
	33: "selectors of peers match pods only",
	34: "exceptions of a block",
	35: "0.0.0.0/0 and ::/0",
	36: "blocks of the other family match nothing",
	37: "names of ports are those of each pod",
	38: "ranges of ports",
	39: "protocols of ports",
	40: "both sides must allow",
	41: "a pod's own node reaches it",
	42: "a pod reaches itself",
	43: "labels of namespaces, of which the name is one",
	44: "match expressions",
	45: "pods that nobody selects are open, and what is not understood is closed",
	46: "rules about ports are not about ICMP",
	47: "a listing removes what is missing",
	48: "tiers that select nobody are skipped",
	49: "the order of policies",
	50: "Pass and Log",
	51: "types of our own policies, and subjects",
	52: "where selectors look, and notSelector",
	53: "network sets overlap and are no subjects",
	54: "ClusterNetworkPolicy",
	55: "staged policies are seen and decide nothing",
	56: "services are their endpoints, ready or not",
	57: "an address is in one block, which one node hands out",
	58: "nothing is deleted that changed meanwhile",
	59: "leaks are seen twice, a grace apart",
	60: "empty blocks are given back",
	61: "addresses are used again first in, first out, after they have rested",
	62: "which pool, and reservations",
	63: "pools and nodes that go and return",
	64: "the first and the last address of a block are used",
	65: "packets to addresses that nobody has end here, and do not circle",
	66: "what neighbours are told",
	67: "what is taken from neighbours",
	68: "reflectors keep next hops and leave the mesh",
	69: "of two nodes one calls, and passwords change one session each",
	70: "which nodes are of the same subnet",
	71: "one device for IP in IP, and who may send to it",
	72: "what nodes know of each other's ends of VXLAN, and its port",
	73: "sources of what comes out of tunnels",
	74: "equal paths share traffic",
	75: "restarts without flaps, one soon after another too",
	76: "whose routes are whose, and links that flap",
	77: "which nodes announce the addresses of services",
	78: "a node is left before its pods go, and ready without all of its peers",
	79: "the addresses of nodes change",
	80: "masquerading",
	81: "the node's own address in tunnels",
}

var (
	testName = regexp.MustCompile(`(?m)(?:^func Test|\{")Items?((?:\d+|To|And)+)`)
	span     = regexp.MustCompile(`(\d+)(?:To(\d+))?`)
)

func TestEveryItemHasATestOfItsNumber(t *testing.T) {
	tested := map[int]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range testName.FindAllStringSubmatch(string(text), -1) {
			for _, s := range span.FindAllStringSubmatch(name[1], -1) {
				first, _ := strconv.Atoi(s[1])
				last := first
				if s[2] != "" {
					last, _ = strconv.Atoi(s[2])
				}
				for n := first; n <= last; n++ {
					tested[n] = true
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for n, what := range items {
		if !tested[n] {
			t.Errorf("no test is named after item %d: %s", n, what)
		}
	}
}
