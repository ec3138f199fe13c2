package pathmtu

import (
	"math/bits"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/desired"
)

// A train is as much as a connection of TCP sends at once: large packets of as many
// segments as a new connection may send. There are several, since one that is lost by
// chance would take all that is in it along.
const (
	loads        = 4    // large packets
	perLoad      = 12   // segments of each
	trainSegment = 1200 // bytes: every tunnel takes them
)

// trainsEvery is how often trains go to a peer that is not in trouble.
const trainsEvery = time.Hour

// Train is what came of a train.
type Train struct {
	Segments int           // that were sent; 0: none
	Came     int           // that were answered
	Took     time.Duration // from the first that was sent to the last answer
}

// Trains are two trains of the same bytes, one after the other.
type Trains struct {
	Finished Train // by the kernel: cut, and with checksums
	Cut      Train // by the device
}

// Slow reports whether what is wrong with the train that a device cuts is how long it
// takes: most of it arrives.
func (t Trains) Slow() bool { return 2*t.Cut.Came >= t.Cut.Segments }

// A device is slow when what it cuts takes both so many times as long as what the kernel
// cuts, and so long: 58 kB in it are 2.3 Mbit/s. What is faster may be the work of
// a busy processor.
const (
	slower  = 8
	slowest = 200 * time.Millisecond
)

// verdict is what two trains say of a device.
type verdict uint8

const (
	unsaid verdict = iota // the path itself, or a firewall, loses too much
	sane
	insane
)

// judge says whether a device cuts as well as the kernel does, given a path on which
// what the kernel cuts arrives.
func (t Trains) judge() verdict {
	switch {
	case t.Cut.Segments == 0 || !t.Finished.nearlyWhole():
		return unsaid
	case !t.Slow(), t.Cut.Took > slowest && t.Cut.Took > slower*t.Finished.Took:
		return insane
	}
	return sane
}

func (t Train) nearlyWhole() bool { return t.Segments > 0 && 10*t.Came >= 9*t.Segments }

// answers are the segments of a train that were answered for.
type answers [loads]uint16 // one bit for each segment

// note takes in that a packet was answered whose last byte is that before end, counted
// from the train's first.
func (a *answers) note(end uint32) {
	if n := end / trainSegment; end%trainSegment == 0 && 0 < n && n <= loads*perLoad {
		a[(n-1)/perLoad] |= 1 << ((n - 1) % perLoad)
	}
}

// of returns how many segments of a train arrived. A device that is a virtual one hands a
// large packet over as it is, and then there is one answer to all of it: to its end, and
// to nothing in it.
func (a answers) of(kind byte) int {
	n := 0
	for _, load := range a {
		if kind == cut && load == 1<<(perLoad-1) {
			n += perLoad
			continue
		}
		n += bits.OnesCount16(load)
	}
	return n
}

// hauls is what is known of the trains to a peer.
type hauls struct {
	at     time.Time // of the last ones
	insane int       // how often in a row
	last   Trains    // of those
}

// trainTo chooses one of the peers of a round for trains: one to which unfinished
// packets get through at all, and that had none within trainsEvery, or had trouble with
// them that is not yet proved.
func (b *book) trainTo(peers []Peer, now time.Time) (Peer, bool) {
	i := slices.IndexFunc(peers, func(p Peer) bool {
		h := b.hauls[p.way()]
		due := now.Sub(h.at) >= trainsEvery || h.insane > 0 && h.insane < attempts
		return p.Offloads && p.MAC != desired.MAC{} && b.left[p.way()].intact && due
	})
	if i < 0 {
		return Peer{}, false
	}
	return peers[i], true
}

// noteTrains writes down what came of trains.
func (b *book) noteTrains(p Peer, t Trains, now time.Time) {
	w := p.way()
	if b.peers[w] != p {
		return
	}
	h := b.hauls[w]
	h.at = now
	switch t.judge() {
	case sane:
		h.insane = 0
	case insane:
		h.insane, h.last = h.insane+1, t
	}
	b.hauls[w] = h
	b.suspectLeft(w)
}
