package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/flow/wire"
)

var dropTime = time.Date(2026, 11, 22, 7, 20, 0, 0, time.Local)

func someDrop(node string) wire.Drop {
	return wire.Drop{
		First: dropTime, Last: dropTime.Add(5 * time.Second), Count: 12, Node: node, Protocol: "TCP", SrcPort: 40000, DstPort: 5432,
		Src: netip.MustParseAddr("10.244.0.1"), Dst: netip.MustParseAddr("10.244.1.2"), DstPod: "shop/db",
		Reason: wire.Reason{Cause: "tier", Direction: "ingress", Endpoint: "shop/db", Tier: "default", Policies: []string{"knp/shop/db-allow"}},
	}
}

func answerOf(node string) string {
	var b strings.Builder
	out := json.NewEncoder(&b)
	d := someDrop(node)
	_ = out.Encode(wire.Line{Drop: &d}) // into memory
	_ = out.Encode(wire.Line{Summary: &wire.Summary{Node: node, Looked: 12, Missed: 3}})
	return b.String()
}

// agent answers on the socket of a run directory.
func agent(t *testing.T) (runDir string, asked func() string) {
	t.Helper()
	runDir = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(runDir, wire.Socket))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards query
	var query string
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		query = r.URL.Path + "?" + r.URL.RawQuery
		mu.Unlock()
		fmt.Fprint(w, answerOf("a1"))
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
	return runDir, func() string {
		mu.Lock()
		defer mu.Unlock()
		return query
	}
}

func runDrops(t *testing.T, args ...string) (out, problems string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var o, p bytes.Buffer
	code = run(ctx, append([]string{"drops"}, args...), strings.NewReader(""), &o, &p)
	return o.String(), p.String(), code
}

func TestDropsOfThisNode(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	runDir, asked := agent(t)
	out, problems, code := runDrops(t, "--run-dir", runDir, "-n", "shop", "db")
	want := `2026-11-22 07:20:05 a1: 10.244.0.1 -> shop/db (10.244.1.2) TCP 5432 denied 12 times since 07:20:00: no rule of knp/shop/db-allow matches (ingress of shop/db, end of tier default)

More about the last one: koratctl policy explain 10.244.0.1 shop/db:5432/TCP --why
`
	if out != want || code != 0 {
		t.Errorf("exit status %d, got\n%s", code, out)
	}
	if want := "warning: node a1 has not looked at 3 denied packets: there were too many\n"; problems != want {
		t.Errorf("problems are %q", problems)
	}
	if asked() != "/drops?pod=shop%2Fdb" {
		t.Errorf("asked was %q", asked())
	}
	if out, _, _ := runDrops(t, "--run-dir", runDir, "-o", "json"); out != answerOf("a1") {
		t.Errorf("JSON is\n%s", out)
	}
}

func TestDropsWithoutAnAgent(t *testing.T) {
	if _, problems, code := runDrops(t, "--run-dir", t.TempDir()); code != exitError || !strings.Contains(problems, "no agent answers") {
		t.Errorf("exit status %d: %s", code, problems)
	}
	if _, problems, code := runDrops(t, "--run-dir", t.TempDir(), "--node", "b1"); code != exitError || !strings.Contains(problems, "both --run-dir and --node are given") {
		t.Errorf("for a run directory and a node: exit status %d, %s", code, problems)
	}
}

// cluster is an API server with an agent on each of two nodes, of which one fails.
func fakeAPI(t *testing.T) (kubeconfig string, commands func() []string) {
	t.Helper()
	var mu sync.Mutex // guards ran
	var ran []string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/pods", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[{"metadata":{"namespace":"shop","name":"web"},"status":{"podIPs":[{"ip":"10.244.0.1"}]}},
			{"metadata":{"namespace":"kube-system","name":"agent-a1"},"spec":{"hostNetwork":true},"status":{"podIPs":[{"ip":"192.0.2.1"}]}}]}`)
	})
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/pods", func(w http.ResponseWriter, r *http.Request) {
		var items []string
		for _, node := range []string{"a1", "a2"} {
			if f := r.URL.Query().Get("fieldSelector"); f == "" || f == "spec.nodeName="+node {
				items = append(items, fmt.Sprintf(`{"metadata":{"namespace":"kube-system","name":"agent-%s"},"spec":{"nodeName":"%[1]s"}}`, node))
			}
		}
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
	})
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/pods/{agent}/exec", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ran = append(ran, r.PathValue("agent")+": "+strings.Join(r.URL.Query()["command"], " "))
		mu.Unlock()
		if r.PathValue("agent") == "agent-a1" {
			execute(w, r, answerOf("a1"), `{"status":"Success"}`)
		} else {
			execute(w, r, "", `{"status":"Failure","message":"it does not run"}`)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],
		"clusters":[{"name":"x","cluster":{"server":%q}}],"users":[{"name":"x","user":{}}]}`, srv.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig, func() []string {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(ran)
		return ran
	}
}

// execute answers an exec over a WebSocket (RFC 6455), as v5.channel.k8s.io does:
// the first byte of a frame is the stream, 1 the output and 3 how it ended.
func execute(w http.ResponseWriter, r *http.Request, stdout, result string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	frame := func(head byte, payload string) {
		b := []byte{head, byte(len(payload))}
		if len(payload) > 125 {
			b = []byte{head, 126, byte(len(payload) >> 8), byte(len(payload))}
		}
		_, _ = conn.Write(append(b, payload...)) // a client that went away sees nothing
	}
	const binary, end = 0x82, 0x88
	if stdout != "" {
		frame(binary, "\x01"+stdout)
	}
	frame(binary, "\x03"+result)
	frame(end, "\x03\xe8") // 1000: done
}

func TestDropsOfTheCluster(t *testing.T) {
	kubeconfig, commands := fakeAPI(t)
	t.Setenv("KUBECONFIG", kubeconfig)
	out, problems, code := runDrops(t, "shop/web", "--node", "a1")
	if code != 0 || !strings.HasPrefix(out, "2026-11-22 07:20:05 a1: shop/web (10.244.0.1) -> shop/db") {
		t.Errorf("exit status %d, %s, got\n%s", code, problems, out)
	}
	if want := []string{"agent-a1: korat drops --pod shop/web --addr 10.244.0.1"}; !slices.Equal(commands(), want) {
		t.Errorf("ran %q", commands())
	}
}

// TestDropsWhenAnAgentFails: the others are told, and which one failed.
func TestDropsWhenAnAgentFails(t *testing.T) {
	kubeconfig, commands := fakeAPI(t)
	if _, err := os.Stat(wire.DefaultSocket); err == nil {
		t.Fatal("an agent runs on this machine: the test would ask it")
	}
	out, problems, code := runDrops(t, "--kubeconfig", kubeconfig)
	if code != exitError || !strings.Contains(out, "a1: shop/web") || !strings.Contains(problems, "agent of node a2: ") || !strings.Contains(problems, "it does not run") {
		t.Errorf("exit status %d, %s, got\n%s", code, problems, out)
	}
	if len(commands()) != 2 {
		t.Errorf("ran %q", commands())
	}
	if _, problems, code := runDrops(t, "--kubeconfig", kubeconfig, "--node", "c9"); code != exitError || !strings.Contains(problems, "there is no agent") {
		t.Errorf("exit status %d: %s", code, problems)
	}
}
