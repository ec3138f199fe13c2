package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// The chains whose names do not tell of an object. Chain names have at most 28
// characters. Those behind a hook are named after it, in every table.
const (
	preroutingChain  = "KORAT-PREROUTING"
	inputChain       = "KORAT-INPUT"
	forwardChain     = "KORAT-FORWARD"
	outputChain      = "KORAT-OUTPUT"
	postroutingChain = "KORAT-POSTROUTING"

	podSourceChain   = "KORAT-POD-SOURCE"
	podToHostChain   = "KORAT-POD-TO-HOST"
	fromPodChain     = "KORAT-FROM-POD" // roots of the tries; children add the
	toPodChain       = "KORAT-TO-POD"   // characters that led to them
	nearFromChain    = "KORAT-NEAR-FROM"
	nearToChain      = "KORAT-NEAR-TO"
	fromHostChain    = "KORAT-FORWARD-IN"
	toHostChain      = "KORAT-FORWARD-OUT"
	failsafeInChain  = "KORAT-FAILSAFE-IN"
	failsafeOutChain = "KORAT-FAILSAFE-OUT"
	noTrackChain     = "KORAT-NOTRACK"
	masqueradeChain  = "KORAT-MASQUERADE"
	floatingChain    = "KORAT-FLOATING"
	allowChain       = "KORAT-ALLOW"
	passChain        = "KORAT-PASS"
)

// Prefixes of the chains of pods (from and to workload), of policies (ingress and
// egress), of host endpoints (in and out; forwarded in and out), and of reasons to
// drop a packet.
const (
	fromPrefix       = "kfw-"
	toPrefix         = "ktw-"
	ingressPrefix    = "kpi-"
	egressPrefix     = "kpo-"
	hostInPrefix     = "khi-"
	hostOutPrefix    = "kho-"
	forwardInPrefix  = "khfi-"
	forwardOutPrefix = "khfo-"
	dropPrefix       = "kd-"
)

// ownName matches the names of all chains that this package ever makes.
var ownName = regexp.MustCompile(`^(KORAT-[A-Z-]+(-[0-9a-z]+)?|k[ft]w-kor[0-9a-z]{1,12}|(kp[io]|kd)-[0-9a-f]{16}|khf?[io]-[A-Za-z0-9._-]{1,15})$`)

// closable matches those whose refusal by the kernel must not hold back others.
var closable = regexp.MustCompile(`^(k[ft]w|kp[io]|khf?[io]|kd)-`)

// trieName matches the chains of the tries.
var trieName = regexp.MustCompile(`^(` + fromPodChain + `|` + toPodChain + `|` + nearFromChain + `|` + nearToChain + `)(-|$)`)

// ifaceName matches the interface names of pods that can be written into rules: a
// "+" would be a wildcard. hostIfaceName matches those of host endpoints.
var ifaceName = regexp.MustCompile(`^` + desired.InterfacePrefix + `[0-9a-z]{1,12}$`)

var hostIfaceName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,14}$`)

// anyHostName stands for desired.AnyInterface in names of chains. No interface
// that hostIfaceName matches is called so.
const anyHostName = "-any"

// programChain returns the name of the chain of a policy in one direction. The
// policy's name may be longer than a chain's, so it is hashed.
func programChain(id ir.ProgramID) string {
	prefix := ingressPrefix
	if id.Direction == policy.Egress {
		prefix = egressPrefix
	}
	return prefix + short(id.Policy.String())
}

// dropChain returns the name of the chain that tells why it drops.
func dropChain(tag string) string { return dropPrefix + short(tag) }

func short(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// isPod reports whether an interface is a pod's, known or not.
func isPod(iface string) bool { return strings.HasPrefix(iface, desired.InterfacePrefix) }

// anyPod matches the interfaces of all pods, known and unknown.
const anyPod = desired.InterfacePrefix + "+"
