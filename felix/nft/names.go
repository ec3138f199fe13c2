package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// TableName is that of the one table, of family inet. Everything in it is ours.
const TableName = "korat"

// The base chains, by the hook that packets enter them at and what goes on there.
const (
	rawIn     = "raw-prerouting"    // before connection tracking
	rawOut    = "raw-output"        // the same for packets of the node
	beforeNAT = "mangle-prerouting" // before the destination is translated
	input     = "input"
	forward   = "forward"
	loops     = "forward-services"
	leaving   = "mangle-postrouting" // with the final destination and interface
	nat       = "nat-postrouting"

	floatingIn    = "nat-prerouting" // floating addresses become those of pods
	floatingOut   = "nat-output"
	floatingLeave = "nat-floating" // and the other way
)

// The chains that packets of all pods go through.
const (
	strangeSource = "strange-source"
	forgedSource  = "forged-source"
	podToHost     = "pod-to-host"
	fromPod       = "from-pod"
	toPod         = "to-pod"
	invalidState  = "invalid"
	neighbours    = "neighbours"
)

// The verdict maps: by interface and source the packets that a pod may send, by
// interface what is said of other sources, and by interface the pods' chains.
const (
	sources4, sources6 = "sources4", "sources6"
	knownPods          = "pods"
	fromPodsMap        = "from"
	toPodsMap          = "to"
)

func sourcesOf(f ir.Family) string {
	if f == ir.IPv6 {
		return sources6
	}
	return sources4
}

// Chains of pods' endpoints begin with from/ and to/, those of host endpoints, and
// their maps, with hosts/.
const (
	fromPrefix   = "from/"
	toPrefix     = "to/"
	sourcePrefix = "source/" // of those with more sources than their addresses
	hostsPrefix  = "hosts/"

	floatingPrefix = "floating/" // chains and maps of floating addresses
)

// attachment names the chains of e: they are others when another pod or other
// addresses stand behind the same interface.
func attachment(e *desired.Endpoint) string {
	var b strings.Builder
	b.WriteString(e.Pod)
	for _, a := range e.Addrs {
		b.WriteString(" " + a.String())
	}
	return e.Interface + "/" + short(b.String(), 4)
}

func short(text string, bytes int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:bytes])
}

// speakable matches what people can write in nft without quotes. It has no
// slash, which separates the parts of our names.
var speakable = regexp.MustCompile(`^[a-zA-Z0-9._-]{0,63}$`)

// programChain names the chain of a policy in one direction, as it is printed
// for an outcome: knp/shop/web/ingress.
func programChain(id ir.ProgramID, o outcome) string {
	name := "policy/" + short(id.Policy.String(), 12)
	if k := id.Policy; speakable.MatchString(k.Namespace) && speakable.MatchString(k.Name) {
		name = k.String()
	}
	return name + "/" + id.Direction.String() + outcomeWords[o]
}

// lasting matches the chains that an earlier life of the agent may have left and
// that are better than what a young one knows: those of endpoints and policies.
var lasting = regexp.MustCompile(`^(from|to|source|policy|knp|np|gnp|cnp|anp|banp)/`)
