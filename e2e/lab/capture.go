package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Capture is what tcpdump tells of the packets at a machine's uplink.
type Capture struct {
	Machine string
	seen    output
	stop    func()
}

// Capture starts a capture of the packets that the filter of tcpdump matches. It
// returns when tcpdump has begun, and goes on until Stop, or until ctx ends.
func (l *Lab) Capture(ctx context.Context, name, filter string) (*Capture, error) {
	m := l.machines[name]
	if m == nil {
		return nil, fmt.Errorf("there is no machine %q", name)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	c := &Capture{Machine: name, stop: func() { cancel(nil); <-ended }}
	var begun output
	cmd := exec.CommandContext(ctx, "tcpdump", "--immediate-mode", "-nlq", "-i", "eth0", filter)
	cmd.Stdout, cmd.Stderr = &c.seen, &begun
	go func() {
		defer close(ended)
		cancel(m.Run(cmd))
	}()
	soon, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	err := Eventually(soon, func(context.Context) error {
		if text := begun.String(); !strings.Contains(text, "listening on") {
			return fmt.Errorf("tcpdump on %s: %s", name, text)
		}
		return nil
	})
	if err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// Seen returns what was told until now, a line for each packet.
func (c *Capture) Seen() string { return c.seen.String() }

// Stop ends the capture.
func (c *Capture) Stop() { c.stop() }

// output is what a program has written until now.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

// String returns all of it.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
