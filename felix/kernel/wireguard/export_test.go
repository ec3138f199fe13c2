package wireguard

import (
	"maps"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/desired"
)

// PrivateOf returns a private key of r.
func PrivateOf(r *Ring) Private { return r.slots[0].key }

// Raw returns what p hides.
func Raw(p Private) [32]byte { return p.reveal() }

// Request is what tells a process c.
func Request(c wgtypes.Config) []byte { return request(c) }

// Known reads what an interface knows of other nodes.
func (r *Reconciler) Known(kind desired.TunnelKind) (map[desired.Key]desired.EncryptedPeer, error) {
	d, err := r.ends[kind].control.read()
	if err != nil {
		return nil, err
	}
	return maps.Collect(known(d.Peers)), nil
}
