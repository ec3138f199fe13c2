// Package journal records on the node's disk which blocks the node owns and
// which pod attachment holds which addresses. It is the truth about single
// addresses: a record is on disk before the CNI plugin hears of it, so no crash
// makes two pods hold one address, and pods start and stop while the API server
// is away.
//
// The file is a list of lines, each a checksum and a JSON record, appended and
// synced, many at a time when many come at once (group.go). A line that a crash
// tore off at the end was never answered for and is dropped. The file is compacted
// when it is opened and when it has grown: it is rewritten beside itself and renamed.
package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/koratnet/korat/ipam"
)

// Attachment is one pod's connection: what CNI ADD made and CNI DEL takes away.
type Attachment struct {
	Handle        ipam.Handle  `json:"handle"`
	Network       string       `json:"network,omitempty"` // whose GC is about it; empty: the agent's own
	HostInterface string       `json:"hostInterface"`
	PodUID        string       `json:"podUID,omitempty"` // as the runtime said; empty: not known
	Netns         string       `json:"netns,omitempty"`  // path of the pod's namespace, for repairs
	Addrs         []netip.Addr `json:"addrs"`
	// MAC is the hardware address that the pod asked for, Sources are the prefixes
	// from which it may send beside Addrs.
	MAC     string         `json:"mac,omitempty"`
	Sources []netip.Prefix `json:"sources,omitempty"`
	// Ingress and Egress bound, in bits a second, what the pod gets and sends; 0: not.
	Ingress uint64 `json:"ingress,omitempty"`
	Egress  uint64 `json:"egress,omitempty"`

	Keep       time.Duration `json:"keep,omitempty"` // how long Addrs are held for the pod's return
	Generation uint64        `json:"generation"`     // grows with every attachment of the node
}

// Rest says how long an address is not handed out.
type Rest struct {
	Until time.Time `json:"until"`
	Pod   string    `json:"pod,omitempty"` // namespace/name for whose return it is kept; empty: nobody's
}

// Claim says what a block is for.
type Claim struct {
	Pool string `json:"pool"`
	// Restricted: the pool is not for everybody (ipam.Pool.Restricted).
	Restricted bool `json:"restricted,omitempty"`
}

// Gift says to whom a part of a block is given.
type Gift struct {
	To     ipam.Owner `json:"to"`
	Number int64      `json:"number,omitempty"` // of the ipam.Want that it answers; 0: of none that is known
}

// State is what the records add up to.
type State struct {
	ID          string                     // random, made with the file: ipam.Owner.Journal
	Node        string                     // node name the file was made for
	Blocks      map[netip.Prefix]Claim     // owned blocks
	Carved      map[netip.Prefix]Gift      // parts of owned blocks that are given away
	Attachments map[ipam.Handle]Attachment // live ones
	Resting     map[netip.Addr]Rest        // freed addresses
	Generation  uint64                     // the greatest so far
}

// compactFrom is the size, in bytes, from which on the file is rewritten when it
// has grown to four times of what its state needs.
const compactFrom = 1 << 20

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	path    string
	lock    *os.File // held while open: no second agent writes here
	damaged error    // what was wrong with an earlier file, which was moved away

	writing sync.Mutex // guards the file: one group is written at a time. Taken before mu
	file    *os.File
	size    int64 // of what is synced
	packed  int64 // size after the last compaction
	torn    bool  // the file may be longer than size

	mu     sync.Mutex // guards all below
	state  State
	on     map[string]map[ipam.Handle]struct{} // attachments by host interface
	ill    error                               // why the last group was not written; nil: it was
	last   uint64                              // the greatest generation that was given, on disk or not
	gather *group                              // who comes now joins it; nil: who comes now leads one
}

var (
	// ErrOtherNode: the directory belongs to another node's name.
	ErrOtherNode = errors.New("journal belongs to another node")
	// ErrNotRecorded: the disk did not take a record, so what it says did not happen.
	ErrNotRecorded = errors.New("journal cannot be written")
	// ErrInUse: another agent has the journal open.
	ErrInUse = errors.New("journal is in use by another agent")
)

// Open reads the journal in dir, or makes one for node. A file with damaged
// records, other than a torn end, is moved away and a new one is begun, as if it
// had been lost: guessing could hand an address out twice, and what runs tells
// which addresses are in use. Damage says what happened. Errors: ErrOtherNode,
// ErrInUse, or those of the disk.
func Open(dir, node string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{path: filepath.Join(dir, "journal"), lock: lock}
	if err := j.read(node); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := j.compact(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", j.path, err), lock.Close())
	}
	j.last = j.state.Generation
	return j, nil
}

// read replays the file, or begins anew.
func (j *Journal) read(node string) error {
	j.begin(node)
	data, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("journal: %w", err)
	}
	j.state.ID, j.state.Node = "", ""
	if damage := j.replay(data); damage != nil {
		away := j.path + ".damaged"
		if err := os.Rename(j.path, away); err != nil {
			return fmt.Errorf("journal %s: %w", j.path, errors.Join(damage, err))
		}
		j.damaged = fmt.Errorf("journal %s: %w; it was moved to %s and a new one is begun", j.path, damage, away)
		j.begin(node)
	}
	if j.state.Node != node {
		return fmt.Errorf("journal %s was made by node %q and this is %q: %w; give each node a state directory of its own", j.path, j.state.Node, node, ErrOtherNode)
	}
	return nil
}

// begin forgets everything and makes a new identity.
func (j *Journal) begin(node string) {
	var id [8]byte
	rand.Read(id[:])
	j.on = map[string]map[ipam.Handle]struct{}{}
	j.state = State{
		ID: hex.EncodeToString(id[:]), Node: node,
		Blocks: map[netip.Prefix]Claim{}, Carved: map[netip.Prefix]Gift{},
		Attachments: map[ipam.Handle]Attachment{}, Resting: map[netip.Addr]Rest{},
	}
}

// Damage tells what was wrong with the file that Open found, or nil.
func (j *Journal) Damage() error { return j.damaged }

// Problem says why the last record was not written, or nil if it was. What is
// said then no longer holds when Probe has written one.
func (j *Journal) Problem() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ill
}

// Probe tries to write again, if there is a Problem.
func (j *Journal) Probe() error {
	if j.Problem() == nil {
		return nil
	}
	s := j.State()
	return j.append(record{Open: &openRecord{s.ID, s.Node, s.Generation}}) // says nothing new
}

// Close closes the file. Nothing is lost: every record is synced already.
func (j *Journal) Close() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	return errors.Join(j.file.Close(), j.lock.Close())
}

// State returns a copy of the state.
func (j *Journal) State() State {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.state
	s.Blocks, s.Carved = maps.Clone(s.Blocks), maps.Clone(s.Carved)
	s.Attachments, s.Resting = maps.Clone(s.Attachments), maps.Clone(s.Resting)
	return s
}

// Find returns the attachment of h.
func (j *Journal) Find(h ipam.Handle) (Attachment, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a, ok := j.state.Attachments[h]
	return a, ok
}

// On returns the attachments on a host interface: more than one while a sandbox
// is being replaced. It costs the same however many the node has.
func (j *Journal) On(hostInterface string) []Attachment {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Attachment
	for h := range j.on[hostInterface] {
		out = append(out, j.state.Attachments[h])
	}
	return out
}

// Claim records that the node owns block, cut from c.Pool. The error of this and
// of all that follow is ErrNotRecorded.
func (j *Journal) Claim(block netip.Prefix, c Claim) error {
	return j.append(record{Claim: &claimRecord{block, c}})
}

// Drop records that the node owns block no more.
func (j *Journal) Drop(block netip.Prefix) error { return j.append(record{Drop: &block}) }

// Carve records that the part of an owned block is given away.
func (j *Journal) Carve(part netip.Prefix, g Gift) error {
	return j.append(record{Carve: &carveRecord{part, g}})
}

// Return records that a part that was given away is the node's again.
func (j *Journal) Return(part netip.Prefix) error { return j.append(record{Return: &part}) }

// Attach records a under a new Generation, which it returns.
func (j *Journal) Attach(a Attachment) (generation uint64, err error) {
	if err := j.append(record{Attach: &a}); err != nil {
		return 0, err
	}
	return a.Generation, nil
}

// Begin gives a a new Generation, which it returns, and begins to record it. wait,
// which has to be called, once and at once, returns when a is recorded, with the
// same errors as Attach.
func (j *Journal) Begin(a Attachment) (generation uint64, wait func() error) {
	wait = j.enter(record{Attach: &a})
	return a.Generation, wait
}

// Detach records that h is gone and its addresses rest as r says.
func (j *Journal) Detach(h ipam.Handle, r Rest) error {
	return j.append(record{Detach: &detachRecord{h, r}})
}

func (j *Journal) apply(r record) {
	s := &j.state
	switch {
	case r.Open != nil:
		s.ID, s.Node, s.Generation = r.Open.ID, r.Open.Node, max(s.Generation, r.Open.Generation)
	case r.Claim != nil:
		s.Blocks[r.Claim.Block] = r.Claim.Claim
	case r.Drop != nil:
		j.drop(*r.Drop)
	case r.Carve != nil:
		s.Carved[r.Carve.Part] = r.Carve.Gift
		maps.DeleteFunc(s.Resting, func(a netip.Addr, _ Rest) bool { return r.Carve.Part.Contains(a) })
	case r.Return != nil:
		delete(s.Carved, *r.Return)
	case r.Attach != nil:
		j.attach(*r.Attach)
	case r.Detach != nil:
		at := s.Attachments[r.Detach.Handle]
		for _, a := range at.Addrs {
			s.Resting[a] = r.Detach.Rest
		}
		j.detach(r.Detach.Handle)
	case r.Rest != nil:
		s.Resting[r.Rest.Addr] = r.Rest.Rest
	}
}

// drop forgets a block and what is in it, but for what another own block inside has.
func (j *Journal) drop(block netip.Prefix) {
	s := &j.state
	delete(s.Blocks, block)
	elsewhere := func(a netip.Addr) bool {
		for own := range s.Blocks {
			if own.Contains(a) {
				return true
			}
		}
		return false
	}
	maps.DeleteFunc(s.Resting, func(a netip.Addr, _ Rest) bool { return block.Contains(a) && !elsewhere(a) })
	maps.DeleteFunc(s.Carved, func(p netip.Prefix, _ Gift) bool { return block.Overlaps(p) && !elsewhere(p.Addr()) })
}

func (j *Journal) attach(a Attachment) {
	s := &j.state
	s.Attachments[a.Handle] = a
	s.Generation = max(s.Generation, a.Generation)
	for _, addr := range a.Addrs {
		delete(s.Resting, addr)
	}
	on := j.on[a.HostInterface]
	if on == nil {
		on = map[ipam.Handle]struct{}{}
		j.on[a.HostInterface] = on
	}
	on[a.Handle] = struct{}{}
}

func (j *Journal) detach(h ipam.Handle) {
	iface := j.state.Attachments[h].HostInterface
	delete(j.state.Attachments, h)
	if delete(j.on[iface], h); len(j.on[iface]) == 0 {
		delete(j.on, iface)
	}
}

// replay applies the records in data.
func (j *Journal) replay(data []byte) error {
	for n := 1; len(data) > 0; n++ {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		r, err := decode(line)
		switch {
		case err == nil && whole:
			j.apply(r)
		case len(rest) == 0:
			return j.checkOpened() // torn end
		default:
			return fmt.Errorf("line %d is damaged (%w)", n, err)
		}
		data = rest
	}
	return j.checkOpened()
}

func (j *Journal) checkOpened() error {
	if j.state.ID == "" {
		return errors.New("first record is missing")
	}
	return nil
}
