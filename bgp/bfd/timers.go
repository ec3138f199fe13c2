package bfd

import (
	"container/heap"
	"time"
)

// timers is a heap of entries by when they are due.
type timers []*entry

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for container/heap.
func (t *timers) Push(x any) {
	e := x.(*entry)
	e.index = len(*t)
	*t = append(*t, e)
}

// Pop is for container/heap.
func (t *timers) Pop() any {
	old := *t
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return e
}

var _ heap.Interface = (*timers)(nil)

// idle is how long keepTime sleeps when there is nothing to wait for.
const idle = time.Hour

// keepTime runs what is due until the System is closed and has said farewell.
func (s *System) keepTime() {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		wait, ended := s.runDue()
		if ended {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		}
	}
}

// runDue runs the sessions whose time has come, and returns the time to the next.
func (s *System) runDue() (wait time.Duration, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for drained := false; len(s.timers) > 0 && !s.timers[0].at.After(now); {
		e := s.timers[0]
		if !drained && e.silent(now) {
			// We may be the ones that slept: hear first what has come meanwhile.
			drained = true
			s.mu.Unlock()
			s.drain()
			s.mu.Lock()
			now = time.Now()
			continue
		}
		s.run(e, now)
	}
	wait = idle
	if len(s.timers) > 0 {
		wait = s.timers[0].at.Sub(now)
	}
	if s.closing.IsZero() {
		return wait, false
	}
	if len(s.timers) > 0 && now.Before(s.closing) {
		return min(wait, s.closing.Sub(now)), false
	}
	for len(s.timers) > 0 {
		s.forget(s.timers[0])
	}
	s.closePorts()
	return 0, true
}

// tell calls changed until the System is closed.
func (s *System) tell() {
	for range s.news {
		for {
			c, more, ended := s.nextChange()
			if ended {
				return
			}
			if !more {
				break
			}
			s.log.Info("bfd session", "peer", c.Peer, "state", c.State, "diagnostic", c.Diag, "remote_state", c.RemoteState, "lost", c.Lost)
			s.changed(c)
		}
	}
}

func (s *System) nextChange() (c Change, more, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return Change{}, false, !s.closing.IsZero()
	}
	key := s.pending[0]
	s.pending = s.pending[1:]
	c = s.untold[key]
	delete(s.untold, key)
	return c, true, false
}
