package nft

import (
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// Stats count what was sent to the kernel.
func (f *Firewall) Stats() nftables.Stats { return f.table.Stats() }

// Attachment names the chains of an endpoint.
var Attachment = attachment

func (f *Firewall) Refused() map[nftables.Object]error { return f.table.Refused() }

var settings = desired.DefaultSettings()
