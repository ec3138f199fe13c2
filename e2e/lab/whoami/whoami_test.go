package whoami_test

import (
	"context"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/koratnet/korat/e2e/lab/whoami"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

func TestAskHearsTheServerAndItsOwnAddress(t *testing.T) {
	free, err := kerneltest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(int(free))
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- whoami.Serve(ctx, "ns/pod", []string{"tcp/" + port, "udp/" + port}, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	for _, proto := range []string{"tcp", "udp"} {
		for _, addr := range []string{"127.0.0.1:", "[::1]:"} {
			r, err := whoami.Ask(proto, netip.MustParseAddrPort(addr+port), 5*time.Second)
			if err != nil {
				t.Errorf("%s %s: %v", proto, addr, err)
				continue
			}
			if r.Server != "ns/pod" || !r.Client.Addr().IsLoopback() {
				t.Errorf("%s %s: %+v", proto, addr, r)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := whoami.Ask("tcp", netip.MustParseAddrPort("127.0.0.1:"+port), time.Second); err == nil {
		t.Error("a server that has ended answers")
	}
}

func TestAnAnswerIsReadAsItWasWritten(t *testing.T) {
	client := netip.MustParseAddrPort("[::ffff:10.1.2.3]:4567")
	name, got, err := whoami.ParseAnswer(whoami.Answer("ns/pod", client))
	if err != nil || name != "ns/pod" || got != netip.MustParseAddrPort("10.1.2.3:4567") {
		t.Errorf("%q %v %v", name, got, err)
	}
	if _, _, err := whoami.ParseAnswer("404 page not found\n"); err == nil {
		t.Error("what is no answer is taken for one")
	}
}
