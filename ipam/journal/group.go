package journal

import (
	"errors"
	"fmt"
)

// A group is records that are written and synced together. A disk syncs no more
// than some hundreds or thousands of times a second, however little it is; so
// while one group is being synced, all who come gather in the next.
type group struct {
	records []record
	lines   []byte
	done    chan struct{} // closed when the group is on disk, or will never be
	err     error         // set before done is closed
}

// append returns when r is on disk and applied. After an error the file is as
// before: what could not be recorded did not happen.
func (j *Journal) append(r record) error { return j.enter(r)() }

// enter puts r into a group and returns what writes that group, or waits for it.
// That has to be called, once and at once: others may wait for the group.
func (j *Journal) enter(r record) (wait func() error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.Attach != nil {
		j.last++
		r.Attach.Generation = j.last
	}
	g := j.gather
	leads := g == nil
	if leads {
		g = &group{done: make(chan struct{})}
		j.gather = g
	}
	g.records = append(g.records, r)
	g.lines = append(g.lines, encode(r)...)
	return func() error {
		if leads {
			j.lead(g)
		}
		<-g.done
		return g.err
	}
}

// lead writes g when the group before it is written.
func (j *Journal) lead(g *group) {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	j.gather = nil // g is complete
	j.mu.Unlock()

	g.err = j.write(g.lines)
	j.mu.Lock()
	defer j.mu.Unlock()
	defer close(g.done)
	j.ill = g.err
	if g.err != nil {
		return
	}
	for _, r := range g.records {
		j.apply(r)
	}
	if j.size > compactFrom && j.size > 4*j.packed {
		old := j.file
		if j.compact() == nil { // if not: the long file serves as well, and the next group tries again
			old.Close()
		}
	}
}

// write appends lines and syncs them. The caller holds writing.
func (j *Journal) write(lines []byte) error {
	err := j.mend()
	if err == nil {
		err = j.restore()
	}
	if err == nil {
		_, err = j.file.Write(lines)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.torn = true
		return fmt.Errorf("%w: %w", ErrNotRecorded, errors.Join(err, j.mend()))
	}
	j.size += int64(len(lines))
	return nil
}

// restore writes the whole file again if somebody else touched it: what is in
// memory is what was answered for.
func (j *Journal) restore() error {
	if j.intact() {
		return nil
	}
	old := j.file
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.compact(); err != nil {
		return err
	}
	return old.Close()
}

// mend cuts off what a failed write left. While that fails nothing is written:
// a half record in the middle would make the file unreadable.
func (j *Journal) mend() error {
	if !j.torn {
		return nil
	}
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	j.torn = false
	return nil
}
