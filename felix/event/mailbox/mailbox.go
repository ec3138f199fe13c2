// Package mailbox is where the letterboxes (API watch, CNI server, BGP
// neighbours) leave events and the engine's goroutine collects them. It keeps
// the last event per key, so what waits is bounded by the number of things in
// the cluster, however often they change.
package mailbox

import (
	"sync"

	"github.com/koratnet/korat/felix/event"
)

// Mailbox is safe for concurrent use. Make it with New.
type Mailbox struct {
	mu     sync.Mutex // guards all below
	events []event.Event
	index  map[event.Key]int // into events
	synced event.Source

	ready chan struct{} // holds one token while there is something to take
}

// New returns an empty mailbox.
func New() *Mailbox {
	return &Mailbox{index: map[event.Key]int{}, ready: make(chan struct{}, 1)}
}

// Post leaves events; each replaces a waiting one of the same key.
func (m *Mailbox) Post(evs ...event.Event) {
	if len(evs) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ev := range evs {
		if i, ok := m.index[ev.Key]; ok {
			m.events[i] = ev
			continue
		}
		m.index[ev.Key] = len(m.events)
		m.events = append(m.events, ev)
	}
	m.wake()
}

// Synced marks that source s has posted all that it knew at its start.
func (m *Mailbox) Synced(s event.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced |= s
	m.wake()
}

// Ready returns a channel that yields when there is something to take.
func (m *Mailbox) Ready() <-chan struct{} { return m.ready }

// Take empties the mailbox. The sources in synced have posted all they knew
// either in events or before.
func (m *Mailbox) Take() (events []event.Event, synced event.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	events, synced = m.events, m.synced
	m.events, m.index, m.synced = nil, map[event.Key]int{}, 0
	select {
	case <-m.ready:
	default:
	}
	return events, synced
}

func (m *Mailbox) wake() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}
