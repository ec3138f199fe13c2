package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/ipam"
)

// record is one line. Exactly one of its pointers is set.
type record struct {
	Open   *openRecord   `json:"open,omitempty"`
	Claim  *claimRecord  `json:"claim,omitempty"`
	Drop   *netip.Prefix `json:"drop,omitempty"`
	Carve  *carveRecord  `json:"carve,omitempty"`
	Return *netip.Prefix `json:"return,omitempty"`
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
	Claim
}

type carveRecord struct {
	Part netip.Prefix `json:"part"`
	Gift
}

type detachRecord struct {
	Handle ipam.Handle `json:"handle"`
	Rest
}

type restRecord struct {
	Addr netip.Addr `json:"addr"`
	Rest
}

// lockDir keeps a second agent out of dir. The kernel lets go when we end,
// however we end.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, errors.Join(fmt.Errorf("journal directory %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// intact reports whether the path still leads to the file as we wrote it. It does
// not when somebody deleted it, put another in its place, or wrote into it.
func (j *Journal) intact() bool {
	ours, err := j.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(j.path)
	return err == nil && os.SameFile(ours, there) && there.Size() == j.size
}

// compact rewrites the file to what the state needs. The caller holds writing.
func (j *Journal) compact() error {
	buf := encode(record{Open: &openRecord{j.state.ID, j.state.Node, j.state.Generation}})
	for _, p := range slices.SortedFunc(maps.Keys(j.state.Blocks), netip.Prefix.Compare) {
		buf = append(buf, encode(record{Claim: &claimRecord{p, j.state.Blocks[p]}})...)
	}
	for p, g := range j.state.Carved {
		buf = append(buf, encode(record{Carve: &carveRecord{p, g}})...)
	}
	for a, r := range j.state.Resting {
		buf = append(buf, encode(record{Rest: &restRecord{a, r}})...)
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
