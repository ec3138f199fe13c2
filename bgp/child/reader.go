package child

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/koratnet/korat/bgp"
)

// reader is a request that is told what the neighbours say.
type reader struct {
	stop func()
	done chan struct{} // closed when it has ended
}

// learned streams what the neighbours say. A reader that is slow is told of the
// last state only, as the speaker coalesces while a write waits.
func (s *Server) learned(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := bufio.NewWriterSize(w, 64<<10)
	flush := http.NewResponseController(w)
	defer s.takeOver(func() {
		cancel()
		_ = flush.SetWriteDeadline(time.Now()) // it may wait for who does not read
	})()
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	_ = s.speaker.Learned(ctx, func(changed []bgp.Learned, synced bool) {
		for part := range slices.Chunk(changed, pathsPerCall) {
			if writeFrame(out, part, false) != nil {
				cancel()
				return
			}
		}
		if writeFrame(out, nil, synced) != nil || flush.Flush() != nil {
			cancel()
		}
	}) // its error is the end of the request
}

// takeOver makes the caller the one reader, as a speaker has one at a time: the one
// before is stopped, and has ended when takeOver returns. ended is to be called when
// the caller has.
func (s *Server) takeOver(stop func()) (ended func()) {
	now := &reader{stop, make(chan struct{})}
	s.mu.Lock()
	before := s.reader
	s.reader = now
	if before != nil {
		before.stop() // with mu held: its request is not over yet
	}
	s.mu.Unlock()
	if before != nil {
		<-before.done
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.reader == now {
			s.reader = nil
		}
		close(now.done)
	}
}
