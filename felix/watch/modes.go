package watch

import (
	"math"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// modes is what the words mean. An empty one, and one from the future, is None.
var modes = map[koratv1.Encapsulation]desired.Mode{
	koratv1.EncapsulationIPIP:             {Encapsulation: desired.IPIP},
	koratv1.EncapsulationIPIPCrossSubnet:  {Encapsulation: desired.IPIP, CrossSubnet: true},
	koratv1.EncapsulationVXLAN:            {Encapsulation: desired.VXLAN},
	koratv1.EncapsulationVXLANCrossSubnet: {Encapsulation: desired.VXLAN, CrossSubnet: true},
}

// encryption: a word from the future is Required.
var encryption = map[koratv1.EncryptionMode]event.Encryption{
	koratv1.EncryptionDisabled: event.Disabled, koratv1.EncryptionPreferred: event.Preferred,
}

// encryptionMode returns nil where nothing is said.
func encryptionMode(word koratv1.EncryptionMode) *event.Encryption {
	if word == "" {
		return nil
	}
	mode, known := encryption[word]
	if !known {
		mode = event.Required
	}
	return &mode
}

// poolEncrypted: a word from the future is Required here as well.
func poolEncrypted(word koratv1.PoolEncryption) bool {
	return word != "" && word != koratv1.PoolEncryptionNone
}

// wireGuardEnds: of an end that does not parse nobody makes use.
func wireGuardEnds(list []koratv1.WireGuardStatus) (ends []event.WireGuardEnd) {
	for _, s := range list {
		kind, known := desired.TunnelOfDevice(s.Interface)
		key, err := desired.ParseKey(s.PublicKey)
		if known && kind.Encapsulation() == desired.WireGuard && err == nil && key != (desired.Key{}) && s.Port > 0 && s.Port <= math.MaxUint16 {
			ends = append(ends, event.WireGuardEnd{EncryptedEnd: desired.EncryptedEnd{Kind: kind, Key: key}, Port: uint16(s.Port)})
		}
	}
	return ends
}

// poolModes: nodes send as the status says, which the controller changes when
// every node can receive that. A pool that it has not seen yet has no history.
func poolModes(o *koratv1.IPPool) event.PoolModes {
	m := event.PoolModes{Wanted: modes[o.Spec.Encapsulation], Generation: o.Generation}
	m.Sends = m.Wanted
	if o.Status.Encapsulation != "" {
		m.Sends = modes[o.Status.Encapsulation]
	}
	m.Before = m.Sends
	if o.Status.EncapsulationBefore != "" {
		m.Before = modes[o.Status.EncapsulationBefore]
	}
	return m
}
