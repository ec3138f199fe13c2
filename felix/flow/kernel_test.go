package flow_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/flow"
	"github.com/koratnet/korat/felix/flow/wire"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nflog"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// node is a namespace whose firewall denies what it sends to a port, and a
// Recorder in it.
type node struct {
	*kerneltest.Namespace
	recorder *flow.Recorder
	runDir   string
}

const deniedPort = 4242

func start(t *testing.T) node {
	t.Helper()
	n := node{
		Namespace: kerneltest.New(t), runDir: t.TempDir(),
		recorder: flow.New(flow.Config{Node: "a1", Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}),
	}
	n.recorder.Want(world())
	for _, tool := range []string{"iptables", "ip6tables"} {
		match := []string{"-A", "OUTPUT", "-p", "udp", "--dport", fmt.Sprint(deniedPort), "-j"}
		n.Run(tool, append(match, "NFLOG", "--nflog-group", fmt.Sprint(desired.DropGroup), "--nflog-prefix", reason.Tag())...)
		n.Run(tool, append(match, "DROP")...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go n.Do(func() { ended <- n.recorder.Run(ctx) })
	go func() { ended <- n.recorder.Serve(ctx, n.runDir) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return n
}

var reason = desired.Reason{Cause: desired.EndOfTier, Direction: policy.Egress, Tier: "default"}

// world: the node's loopback is a host endpoint, whose tier denies.
func world() desired.Delta {
	id := ir.ProgramID{Policy: policy.Key{Kind: policy.GlobalNetworkPolicy, Name: "quiet"}, Direction: policy.Egress}
	chain := ir.Chain{Tiers: []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id}}}}
	return desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{
		"lo": {Name: "lo", Interface: "lo", Normal: desired.Chains{Egress: chain}},
	}}
}

func (n node) send(t *testing.T, to string, count int) {
	t.Helper()
	n.Do(func() {
		c, err := net.Dial("udp", net.JoinHostPort(to, fmt.Sprint(deniedPort)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range count {
			_, _ = c.Write([]byte("x")) // EPERM
		}
	})
}

// ask opens the answer to a question.
func (n node) ask(t *testing.T, query string) *bufio.Scanner {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.runDir, wire.Socket))
	}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://agent"+wire.DropsPath+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	var answer *http.Response
	kerneltest.Eventually(t, "answer", func() bool {
		answer, err = client.Do(req)
		return err == nil
	})
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("answer is %s", answer.Status)
	}
	return bufio.NewScanner(answer.Body)
}

func line(t *testing.T, s *bufio.Scanner) (l wire.Line) {
	t.Helper()
	if !s.Scan() {
		t.Fatalf("answer ends: %v", s.Err())
	}
	if err := json.Unmarshal(s.Bytes(), &l); err != nil {
		t.Fatalf("%s: %v", s.Bytes(), err)
	}
	return l
}

// drops asks for all drops there are.
func (n node) drops(t *testing.T) (drops []wire.Drop, summary wire.Summary) {
	t.Helper()
	for s := n.ask(t, ""); s.Scan(); {
		var l wire.Line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Drop != nil {
			drops = append(drops, *l.Drop)
		} else {
			summary = *l.Summary
		}
	}
	return drops, summary
}

// ready waits until the recorder reads: what is denied before nobody sees.
func (n node) ready(t *testing.T) {
	t.Helper()
	kerneltest.Eventually(t, "recording", func() bool {
		n.send(t, "127.0.0.1", 1)
		drops, _ := n.drops(t)
		return len(drops) > 0
	})
}

func TestDeniedPacketsAreServed(t *testing.T) {
	n := start(t)
	n.ready(t)
	if info, err := os.Stat(filepath.Join(n.runDir, wire.Socket)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v, want it for root alone", info.Mode(), err)
	}
	follow := n.ask(t, "?follow")
	first := line(t, follow).Drop
	if first == nil || first.Dst != netip.MustParseAddr("127.0.0.1") || first.DstPort != deniedPort || first.Out != "lo" ||
		first.Reason.Tier != "default" || first.Reason.Direction != "egress" || first.Reason.Endpoint != "lo" || first.Reason.Policies[0] != "gnp/quiet" {
		t.Fatalf("drop is %+v", first)
	}
	if s := line(t, follow).Summary; s == nil || s.Node != "a1" || s.Looked == 0 || s.Problem != "" {
		t.Errorf("summary is %+v", s)
	}
	n.send(t, "::1", 3)
	l := line(t, follow)
	for l.Drop != nil && l.Drop.Dst == first.Dst { // a late one of those before
		l = line(t, follow)
	}
	if d := l.Drop; d == nil || d.Dst != netip.IPv6Loopback() || d.Protocol != "UDP" {
		t.Errorf("what follows is %+v", d)
	}
	if l := line(t, n.ask(t, "?addr=192.0.2.1")); l.Summary == nil {
		t.Errorf("drops of nobody: %+v", l.Drop)
	}
}

func TestNobodyReadsTheGroupWhenRecordingIsOff(t *testing.T) {
	n := start(t)
	n.ready(t)
	set := func(on bool) {
		s := desired.DefaultSettings()
		s.DropRecords = on
		n.recorder.Want(desired.Delta{Settings: &s})
	}
	free := func() (free bool) {
		n.Do(func() {
			s, err := nflog.Open(desired.DropGroup)
			if free = err == nil; free {
				s.Close()
			}
		})
		return free
	}
	set(false)
	kerneltest.Eventually(t, "the group is free", free)
	if _, summary := n.drops(t); summary.Problem == "" {
		t.Error("the summary does not say that recording is off")
	}
	set(true)
	kerneltest.Eventually(t, "the group is read again", func() bool { return !free() })
}

// TestAFloodCostsLittle floods for a second and looks at what the recorder
// consumed meanwhile: few packets, and the number of the others.
func TestAFloodCostsLittle(t *testing.T) {
	n := start(t)
	n.ready(t)
	begin, cpu := time.Now(), processTime(t)
	sent := 0
	for time.Since(begin) < time.Second {
		n.send(t, "127.0.0.1", 1000)
		sent += 1000
	}
	flood := processTime(t) - cpu
	var summary wire.Summary
	kerneltest.Eventually(t, "what was sent is looked at or missed", func() bool {
		n.send(t, "127.0.0.1", 1) // the next packet tells how many were missed
		_, summary = n.drops(t)
		return summary.Looked+summary.Missed >= uint64(sent)
	})
	const aSecond = 6000 // 5,000, and what a batch brings beyond
	if most := uint64(aSecond * (1 + time.Since(begin).Seconds())); summary.Looked > most || summary.Missed == 0 {
		t.Errorf("of %d packets %d were looked at, %d missed, want at most %d looked at", sent, summary.Looked, summary.Missed, most)
	}
	t.Logf("%d packets in a second (%v of CPU with the sender): %d looked at, %d missed", sent, flood, summary.Looked, summary.Missed)
}

func processTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
