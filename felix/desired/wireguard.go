package desired

import (
	"encoding/base64"
	"fmt"
	"net/netip"

	"github.com/koratnet/korat/policy/ir"
)

// Key is a public key of WireGuard (Curve25519). The zero Key is nobody's.
type Key [32]byte

// String returns k in base64, as wg(8) writes it.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// ParseKey reads what String writes.
func ParseKey(text string) (k Key, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err == nil && len(raw) != len(k) {
		err = fmt.Errorf("%d bytes, expected %d", len(raw), len(k))
	}
	if err != nil {
		return Key{}, fmt.Errorf("public key of WireGuard %q: %w", text, err)
	}
	return Key(raw), nil
}

// EncryptedEnd identifies another node's end of a WireGuard tunnel.
type EncryptedEnd struct {
	Kind TunnelKind
	Key  Key
}

// EncryptedPeer is another node's end of a WireGuard tunnel. Of two with a prefix in
// common that of the narrower one counts, and no two have the same.
type EncryptedPeer struct {
	// Endpoint is where the node listens. ToNodesTable leads its address into the
	// tunnel.
	Endpoint netip.AddrPort
	// Idle: nothing is sent through this end now, its address is led into another.
	Idle bool
	// Host: what this node itself sends to the Endpoint's address goes through this end
	// too. HostTable leads it there.
	Host bool
	// Prefixes are what goes into the tunnel for it, and all that may come out of
	// the tunnel from it. Sorted, each once, maybe none; never changed.
	Prefixes []netip.Prefix
}

// The UDP ports of WireGuard, one for each kind of tunnel, where nothing else is
// configured.
const (
	WireGuardPort4 = 51820 + iota
	WireGuardPort6
	WireGuardPort4Odd
	WireGuardPort6Odd
)

// EncryptedSet has the pools whose packets never travel from node to node in clear.
// It is told as MasqueradeSet is.
const EncryptedSet ir.SetID = "encrypted"
