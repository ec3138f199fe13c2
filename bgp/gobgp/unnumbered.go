package gobgp

import (
	"net/netip"
	"sync"
)

// routers are those that advertise themselves, by link.
type routers struct {
	mu sync.Mutex // guards m
	m  map[string]netip.Addr
}

// of returns the address of the router on link, with link as its zone.
func (r *routers) of(link string) (netip.Addr, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addr, ok := r.m[link]
	return addr, ok
}
