package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/koratnet/korat/policy"
)

// DropGroup is the group of nfnetlink_log to which every data plane tells the
// packets that it denies, with the Tag of the Reason as prefix.
const DropGroup = 112

// Cause is what kind of thing denied a packet.
type Cause uint8

// The causes. Those after NoMatch are no policy's: the packet broke a rule that
// holds for every pod.
const (
	ByRule    Cause = iota // a rule of a policy
	EndOfTier              // a tier with policies for the endpoint, none of which decided
	NoMatch                // the end of the last tier, where the default is to deny
	Unknown                // an interface with our prefix that the agent does not know
	Forged                 // a source that is not the pod's
	Tunnel                 // an encapsulated packet, built by a pod
	Invalid                // no packet of any connection
	ToHost                 // Settings.PodToHost
	Loop                   // Settings.Loops
	Router                 // a router advertisement or redirect from a pod
	Clear                  // a packet of EncryptedSet that travels in clear
)

var causes = [...]string{"rule", "tier", "default", "unknown", "forged", "tunnel", "invalid", "tohost", "loop", "router", "clear"}

// String returns a short constant word.
func (c Cause) String() string { return causes[c] }

// Reason is why a packet was denied. Who was asked is the endpoint on whose
// interface it came or was to leave.
type Reason struct {
	Cause     Cause
	Direction policy.Direction // seen from the endpoint that denied
	Policy    policy.Key       // ByRule
	Rule      int              // ByRule: index in that direction's rules, as written
	Tier      string           // EndOfTier
}

// Tag is r in at most 40 printable characters, which a rule in the kernel can
// carry (NFLOG has room for 63). The same reason has the same Tag everywhere;
// names are hashed, as they can be longer than that.
func (r Reason) Tag() string {
	tag := "korat:" + r.Cause.String() + ":" + r.Direction.String()[:1]
	switch r.Cause {
	case ByRule:
		return fmt.Sprintf("%s:%s:%d", tag, short(r.Policy.String()), r.Rule)
	case EndOfTier:
		return tag + ":" + short(r.Tier)
	}
	return tag
}

func short(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}
