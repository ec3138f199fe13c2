package watch

import (
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
