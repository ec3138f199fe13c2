package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// The chains that are always there. Chain names have at most 28 characters.
const (
	preroutingChain = "KORAT-PREROUTING"
	podSourceChain  = "KORAT-POD-SOURCE"
	forwardChain    = "KORAT-FORWARD"
	forwardedChain  = "KORAT-FORWARDED"
	inputChain      = "KORAT-INPUT"
	podToHostChain  = "KORAT-POD-TO-HOST"
	fromPodChain    = "KORAT-FROM-POD" // roots of the tries; children add the
	toPodChain      = "KORAT-TO-POD"   // characters that led to them
	allowChain      = "KORAT-ALLOW"
	passChain       = "KORAT-PASS"
)

// Prefixes of the chains of endpoints (from and to workload) and of policies
// (ingress and egress).
const (
	fromPrefix    = "kfw-"
	toPrefix      = "ktw-"
	ingressPrefix = "kpi-"
	egressPrefix  = "kpo-"
)

// ownName matches the names of all chains that this package ever makes.
var ownName = regexp.MustCompile(`^(KORAT-[A-Z-]+(-[0-9a-z]+)?|k[ft]w-kor[0-9a-z]{1,12}|kp[io]-[0-9a-f]{16})$`)

// closable matches those whose refusal by the kernel must not hold back others.
var closable = regexp.MustCompile(`^(k[ft]w|kp[io])-`)

// ifaceName matches the interface names that can be written into rules: a "+"
// would be a wildcard.
var ifaceName = regexp.MustCompile(`^` + desired.InterfacePrefix + `[0-9a-z]{1,12}$`)

// programChain returns the name of the chain of a policy in one direction. The
// policy's name may be longer than a chain's, so it is hashed.
func programChain(id ir.ProgramID) string {
	sum := sha256.Sum256([]byte(id.Policy.String()))
	prefix := ingressPrefix
	if id.Direction == policy.Egress {
		prefix = egressPrefix
	}
	return prefix + hex.EncodeToString(sum[:8])
}

// anyPod matches the interfaces of all pods, known and unknown.
const anyPod = desired.InterfacePrefix + "+"

// Marks: bits of the packet mark, in the upper half, away from those of
// kube-proxy (0x4000, 0x8000) and portmap (0x2000). They mean something only
// between one of our rules and the next; KORAT-ALLOW clears all but accept.
const (
	acceptMark = 0x10000 // this direction lets the packet through
	passMark   = 0x20000 // the tier was left by Pass
	blockMark  = 0x40000 // scratch: one OR-list of a rule has matched
	everyMark  = 0x80000 // scratch: all OR-lists so far have matched
	allMarks   = acceptMark | passMark | blockMark | everyMark
)
