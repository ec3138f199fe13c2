package wireguard

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
)

// keepalive makes an end that hears of another one greet it at once, whether or not
// there is anything to send: that other one may have been greeting in vain for a while,
// because this end did not know its key, or has just been started anew.
var keepalive = 25 * time.Second

// resync notes which peers the interface has.
func (e *end) resync(peers []wgtypes.Peer) {
	e.peers.Resync(known(peers))
	e.owner = map[netip.Prefix]desired.Key{}
	for k, p := range known(peers) {
		for _, prefix := range p.Prefixes {
			e.owner[prefix] = k
		}
	}
}

// known yields the peers that an interface has.
func known(peers []wgtypes.Peer) iter.Seq2[desired.Key, desired.EncryptedPeer] {
	return func(yield func(desired.Key, desired.EncryptedPeer) bool) {
		for _, p := range peers {
			have := desired.EncryptedPeer{Endpoint: endpoint(p)}
			for _, a := range p.AllowedIPs {
				have.Prefixes = append(have.Prefixes, prefixOf(a))
			}
			slices.SortFunc(have.Prefixes, netip.Prefix.Compare)
			if !yield(desired.Key(p.PublicKey), have) {
				return
			}
		}
	}
}

// push carries out what is pending.
func (e *end) push() error {
	p := newPlan(e.owner, e.peers.Pending())
	if len(p.keys) == 0 {
		return nil
	}
	peers, err := p.peers()
	if err != nil {
		return err
	}
	if err := e.control.write(wgtypes.Config{Peers: peers}); err != nil {
		return fmt.Errorf("tell of %d nodes: %w", len(p.keys), err)
	}
	for _, k := range p.keys {
		e.peers.Done(k)
	}
	p.done()
	return nil
}

// plan is a change of peers. A prefix belongs to one peer: to give it to another is
// one step, after which the one before has lost it. So the prefixes of a peer are
// never replaced as a whole, which takes all of them away for a moment, and what
// nobody is to have any more is given to a peer that nobody is, which then goes.
type plan struct {
	owner      map[netip.Prefix]desired.Key // before
	keys       []desired.Key                // of all that change
	come, gone []wgtypes.PeerConfig
	given      map[netip.Prefix]desired.Key // to whom
	lost       []netip.Prefix               // by all
	left       map[netip.Prefix]desired.Key // by whom, who goes
}

func newPlan(owner map[netip.Prefix]desired.Key, pending iter.Seq2[desired.Key, delta.Change[desired.EncryptedPeer]]) *plan {
	p := &plan{owner: owner, given: map[netip.Prefix]desired.Key{}, left: map[netip.Prefix]desired.Key{}}
	lost := map[netip.Prefix]desired.Key{}
	for k, c := range pending {
		p.keys = append(p.keys, k)
		if c.Op == delta.Remove {
			p.gone = append(p.gone, wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), Remove: true})
			for _, prefix := range c.Have.Prefixes {
				p.left[prefix] = k
			}
			continue
		}
		peer := wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), UpdateOnly: c.Op == delta.Update}
		if !peer.UpdateOnly {
			peer.PersistentKeepaliveInterval = &keepalive
		}
		if c.Want.Endpoint.IsValid() && c.Want.Endpoint != c.Have.Endpoint {
			peer.Endpoint = net.UDPAddrFromAddrPort(c.Want.Endpoint)
		}
		for _, prefix := range c.Want.Prefixes {
			if owner[prefix] != k {
				peer.AllowedIPs = append(peer.AllowedIPs, netOf(prefix))
				p.given[prefix] = k
			}
		}
		for _, prefix := range c.Have.Prefixes {
			if _, keeps := slices.BinarySearchFunc(c.Want.Prefixes, prefix, netip.Prefix.Compare); !keeps {
				lost[prefix] = k
			}
		}
		p.come = append(p.come, peer)
	}
	for prefix, k := range lost {
		if _, another := p.given[prefix]; !another && owner[prefix] == k {
			p.lost = append(p.lost, prefix)
		}
	}
	return p
}

// peers returns what is to be told, in order: what comes, then what goes.
func (p *plan) peers() ([]wgtypes.PeerConfig, error) {
	peers := p.come
	if len(p.lost) > 0 {
		private, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			return nil, err
		}
		nobody := private.PublicKey()
		taker := wgtypes.PeerConfig{PublicKey: nobody}
		for _, prefix := range p.lost {
			taker.AllowedIPs = append(taker.AllowedIPs, netOf(prefix))
		}
		peers = append(peers, taker, wgtypes.PeerConfig{PublicKey: nobody, Remove: true})
	}
	return append(peers, p.gone...), nil
}

// done notes that all of it was told.
func (p *plan) done() {
	maps.Copy(p.owner, p.given)
	for _, prefix := range p.lost {
		delete(p.owner, prefix)
	}
	for prefix, k := range p.left {
		if p.owner[prefix] == k {
			delete(p.owner, prefix)
		}
	}
}

func netOf(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}
