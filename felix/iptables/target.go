package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// target ends a packet's way through the policy.
func target(a policy.Action) string {
	switch a {
	case policy.Allow:
		return "-g " + allowChain
	case policy.Pass:
		return "-g " + passChain
	}
	return "-j DROP"
}

// How much one rule may write to the kernel's log: a flood of packets must not
// become a flood of lines.
const (
	logRate  = "10/second"
	logBurst = "50"
)

// logTarget notes a packet in the kernel's log.
func logTarget(id ir.ProgramID, origin int) string {
	return fmt.Sprintf(`-m limit --limit %s --limit-burst %s -j LOG --log-prefix "%s"`, logRate, logBurst, logPrefix(id, origin))
}

// maxLogPrefix is what the LOG target has place for.
const maxLogPrefix = 29

// logPrefix names the rule of the policy that a line of the log is from, such as
// "knp/shop/web:in0 ". A name that is too long is cut, and a hash tells it from
// others that begin alike.
func logPrefix(id ir.ProgramID, origin int) string {
	which := ":in" + strconv.Itoa(origin) + " "
	if id.Direction == policy.Egress {
		which = ":out" + strconv.Itoa(origin) + " "
	}
	name := printable(id.Policy.String())
	if room := maxLogPrefix - len(which); len(name) > room {
		sum := sha256.Sum256([]byte(id.Policy.String()))
		mark := "~" + hex.EncodeToString(sum[:2])
		name = name[:room-len(mark)] + mark
	}
	return name + which
}
