package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// deny drops a packet, and tells why where that is wanted: in a chain of its own,
// so that packets which are not denied do not pay for it.
func (s style) deny(r desired.Reason) verdict {
	if !s.settings.DropRecords {
		return verdict{target: dropNow}
	}
	tag := r.Tag()
	return verdict{"-g " + dropChain(tag), tag}
}

// recordBytes is how much of a denied packet is told: its headers.
const recordBytes = 128

// dropFor returns the chain that tells the listeners of desired.DropGroup of a
// packet and drops it. Where nobody listens the telling costs little.
func dropFor(tag string) chain {
	return newChain(dropChain(tag), specs(
		fmt.Sprintf(`-j NFLOG --nflog-group %d --nflog-prefix "%s" --nflog-size %d`, desired.DropGroup, tag, recordBytes),
		dropNow))
}

// verdict is what a rule of a program does.
func (s style) verdict(id ir.ProgramID, r ir.Rule) verdict {
	switch r.Action {
	case policy.Allow:
		return verdict{target: "-g " + allowChain}
	case policy.Pass:
		return verdict{target: "-g " + passChain}
	}
	return s.deny(desired.Reason{Cause: desired.ByRule, Direction: id.Direction, Policy: id.Policy, Rule: r.Origin})
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
