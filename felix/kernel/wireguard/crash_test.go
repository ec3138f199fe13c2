package wireguard_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// churn is a process that changes a node's tunnel for as long as it lives: it says a
// word for every change.
func churn(namespace, dir string) error {
	if err := enter(namespace); err != nil {
		return err
	}
	ring, err := wireguard.OpenRing(dir)
	if err != nil {
		return err
	}
	r, err := wireguard.New(wireguard.Config{Ring: ring, RunDir: dir, Version: version, Command: []string{"korat", "wireguard", version}})
	if err != nil {
		return err
	}
	if err := r.Resync(context.Background()); err != nil {
		return err
	}
	s := &site{kind: desired.WireGuard4, ring: ring, inside: netip.MustParseAddr("10.0.1.1")}
	for i := 0; ; i++ {
		r.Want(s.with(manyNodes(i%7*10, 100)))
		gone := manyNodes(i%7*10, 10)
		for end := range gone.EncryptedPeers {
			gone.EncryptedPeers[end] = nil
		}
		if err := r.Apply(context.Background()); err != nil {
			return err
		}
		r.Want(gone)
		if err := r.Apply(context.Background()); err != nil {
			return err
		}
		fmt.Println("changed")
	}
}

// TestWhatWasBegunIsFinishedByTheNext: whoever configures may be killed at any time.
func TestWhatWasBegunIsFinishedByTheNext(t *testing.T) {
	_, all := sites(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	b.apply(t, b.knows(b.own(), a))
	b.routes(a)
	for round := range 6 {
		killChurn(t, a, time.Duration(round*round)*5*time.Millisecond)
		a.tunnels = a.open(t)
		d := a.with(manyNodes(500, 20))
		for end, p := range a.knows(desired.Delta{}, b).EncryptedPeers {
			d.EncryptedPeers[end] = p
		}
		a.apply(t, d)
		a.has(t, d)
		a.routes(b)
		a.reaches(t, b)
	}
}

// killChurn kills a process that changes s some time after it began: with no time at
// all, while it makes the interface.
func killChurn(t *testing.T, s *site, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "churn", s.Path(), s.dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kerneltest.Eventually(t, "the interface is there", func() bool {
		_, err := s.LinkByName(s.kind.Device())
		return err == nil
	})
	<-time.After(after)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if state, _ := cmd.Process.Wait(); state == nil || !strings.Contains(state.String(), "killed") {
		t.Fatalf("it ended by itself: %v", state)
	}
}

// flow sends some hundred echo requests while the test goes on, and returns how many
// were sent and how many were answered.
func (s *site) flow(t *testing.T, to netip.Addr, options ...string) (end func() (sent, answered int)) {
	t.Helper()
	var out string
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, _ = s.Try("ping", append(options, "-i", "0.01", "-c", "300", "-W", "5", "-q", to.String())...) // fails if something was lost
	}()
	return func() (sent, answered int) {
		<-done
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 3 && strings.HasPrefix(f[2], "transmitted") {
				sent, _ = strconv.Atoi(f[0])
				answered, _ = strconv.Atoi(f[3])
			}
		}
		if sent == 0 || answered < sent {
			t.Logf("ping %s: %s", to, out)
		}
		return sent, answered
	}
}
