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
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/ipam"
)

// Attachment is one pod's connection: what CNI ADD made and CNI DEL takes away.
type Attachment struct {
	Handle        ipam.Handle  `json:"handle"`
	HostInterface string       `json:"hostInterface"`
	Netns         string       `json:"netns,omitempty"` // path of the pod's namespace, for repairs
	Addrs         []netip.Addr `json:"addrs"`
	Generation    uint64       `json:"generation"` // grows with every attachment of the node
}

// State is what the records add up to.
type State struct {
	ID          string                     // random, made with the file: ipam.Owner.Journal
	Node        string                     // node name the file was made for
	Blocks      map[netip.Prefix]string    // owned blocks -> pool
	Attachments map[ipam.Handle]Attachment // live ones
	Resting     map[netip.Addr]time.Time   // freed addresses -> end of their rest
	Generation  uint64                     // the greatest so far
}

// record is one line. Exactly one of its pointers is set.
type record struct {
	Open   *openRecord   `json:"open,omitempty"`
	Claim  *claimRecord  `json:"claim,omitempty"`
	Drop   *netip.Prefix `json:"drop,omitempty"`
	Attach *Attachment   `json:"attach,omitempty"`
	Detach *detachRecord `json:"detach,omitempty"`
	Rest   *restRecord   `json:"rest,omitempty"`
}

type openRecord struct {
	ID         string `json:"id"`
	Node       string `json:"node"`
	Generation uint64 `json:"generation"`
}

type claimRecord struct {
	Block netip.Prefix `json:"block"`
	Pool  string       `json:"pool"`
}

type detachRecord struct {
	Handle ipam.Handle `json:"handle"`
	Until  time.Time   `json:"until"` // end of the rest of its addresses
}

type restRecord struct {
	Addr  netip.Addr `json:"addr"`
	Until time.Time  `json:"until"`
}

// compactFrom is the size, in bytes, from which on the file is rewritten when it
// has grown to four times of what its state needs.
const compactFrom = 1 << 20

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	path string

	writing sync.Mutex // guards the file: one group is written at a time. Taken before mu
	file    *os.File
	size    int64 // of what is synced
	packed  int64 // size after the last compaction
	torn    bool  // the file may be longer than size

	mu     sync.Mutex // guards all below
	state  State
	last   uint64 // the greatest generation that was given, on disk or not
	gather *group // who comes now joins it; nil: who comes now leads one
}

var (
	// ErrOtherNode: the directory belongs to another node's name.
	ErrOtherNode = errors.New("journal belongs to another node")
	// ErrNotRecorded: the disk did not take a record, so what it says did not happen.
	ErrNotRecorded = errors.New("journal cannot be written")
)

// Open reads the journal in dir, or makes one for node. A damaged record that
// is not a torn end is an error that names the line: guessing could hand an
// address out twice.
func Open(dir, node string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal directory: %w", err)
	}
	j := &Journal{path: filepath.Join(dir, "journal"), state: State{
		Blocks: map[netip.Prefix]string{}, Attachments: map[ipam.Handle]Attachment{}, Resting: map[netip.Addr]time.Time{},
	}}
	data, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		var id [8]byte
		rand.Read(id[:])
		j.state.ID, j.state.Node = hex.EncodeToString(id[:]), node
	case err != nil:
		return nil, fmt.Errorf("journal: %w", err)
	default:
		if err := j.replay(data); err != nil {
			return nil, fmt.Errorf("journal %s: %w", j.path, err)
		}
		if j.state.Node != node {
			return nil, fmt.Errorf("journal %s was made by node %q and this is %q: %w; give each node a state directory of its own", j.path, j.state.Node, node, ErrOtherNode)
		}
	}
	if err := j.compact(); err != nil {
		return nil, fmt.Errorf("journal %s: %w", j.path, err)
	}
	j.last = j.state.Generation
	return j, nil
}

// Close closes the file. Nothing is lost: every record is synced already.
func (j *Journal) Close() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	return j.file.Close()
}

// State returns a copy of the state.
func (j *Journal) State() State {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.state
	s.Blocks, s.Attachments, s.Resting = maps.Clone(s.Blocks), maps.Clone(s.Attachments), maps.Clone(s.Resting)
	return s
}

// Find returns the attachment of h.
func (j *Journal) Find(h ipam.Handle) (Attachment, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a, ok := j.state.Attachments[h]
	return a, ok
}

// Claim records that the node owns block, cut from pool. The error of this and
// of all that follow is ErrNotRecorded.
func (j *Journal) Claim(block netip.Prefix, pool string) error {
	return j.append(record{Claim: &claimRecord{block, pool}})
}

// Drop records that the node owns block no more.
func (j *Journal) Drop(block netip.Prefix) error { return j.append(record{Drop: &block}) }

// Attach records a under a new Generation, which it returns.
func (j *Journal) Attach(a Attachment) (generation uint64, err error) {
	if err := j.append(record{Attach: &a}); err != nil {
		return 0, err
	}
	return a.Generation, nil
}

// Detach records that h is gone and its addresses rest until the given time.
func (j *Journal) Detach(h ipam.Handle, until time.Time) error {
	return j.append(record{Detach: &detachRecord{h, until}})
}

func (j *Journal) apply(r record) {
	s := &j.state
	switch {
	case r.Open != nil:
		s.ID, s.Node, s.Generation = r.Open.ID, r.Open.Node, max(s.Generation, r.Open.Generation)
	case r.Claim != nil:
		s.Blocks[r.Claim.Block] = r.Claim.Pool
	case r.Drop != nil:
		delete(s.Blocks, *r.Drop)
		maps.DeleteFunc(s.Resting, func(a netip.Addr, _ time.Time) bool { return r.Drop.Contains(a) })
	case r.Attach != nil:
		s.Attachments[r.Attach.Handle] = *r.Attach
		s.Generation = max(s.Generation, r.Attach.Generation)
		for _, a := range r.Attach.Addrs {
			delete(s.Resting, a)
		}
	case r.Detach != nil:
		for _, a := range s.Attachments[r.Detach.Handle].Addrs {
			s.Resting[a] = r.Detach.Until
		}
		delete(s.Attachments, r.Detach.Handle)
	case r.Rest != nil:
		s.Resting[r.Rest.Addr] = r.Rest.Until
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
			return fmt.Errorf("line %d is damaged (%w): restore the file, or move it away, so that the node starts with blocks of its own", n, err)
		}
		data = rest
	}
	return j.checkOpened()
}

func (j *Journal) checkOpened() error {
	if j.state.ID == "" {
		return errors.New("first record is missing: move the file away, so that the node starts with blocks of its own")
	}
	return nil
}

// compact rewrites the file to what the state needs. The caller holds writing.
func (j *Journal) compact() error {
	buf := encode(record{Open: &openRecord{j.state.ID, j.state.Node, j.state.Generation}})
	for _, p := range slices.SortedFunc(maps.Keys(j.state.Blocks), netip.Prefix.Compare) {
		buf = append(buf, encode(record{Claim: &claimRecord{p, j.state.Blocks[p]}})...)
	}
	for a, until := range j.state.Resting {
		buf = append(buf, encode(record{Rest: &restRecord{a, until}})...)
	}
	for _, a := range j.state.Attachments {
		buf = append(buf, encode(record{Attach: &a})...)
	}
	tmp := j.path + ".new"
	if err := writeSynced(tmp, buf); err != nil {
		return err
	}
	if err := os.Rename(tmp, j.path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(j.path)); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	j.file, j.size, j.packed = f, int64(len(buf)), int64(len(buf))
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func encode(r record) []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic("bug: journal record: " + err.Error())
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(text), text)
}

func decode(line []byte) (record, error) {
	sum, text, ok := bytes.Cut(line, []byte{' '})
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)) {
		return record{}, errors.New("checksum does not fit")
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, err
	}
	return r, nil
}
