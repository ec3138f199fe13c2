package conflist_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/koratnet/korat/felix/conflist"
)

// node is a directory of configurations and one of plugins.
type node struct {
	*testing.T
	conf, bin string
	ready     error
}

func newNode(t *testing.T) *node {
	return &node{T: t, conf: filepath.Join(t.TempDir(), "net.d"), bin: t.TempDir(), ready: errors.New("routes are not in sync yet")}
}

func (n *node) installer() *conflist.Installer {
	return conflist.New(conflist.Config{
		Dir: n.conf, BinDir: n.bin, Chain: []string{"portmap", "bandwidth"}, Socket: "/run/korat/cni.sock",
		Ready: func() error { return n.ready }, Log: slog.New(slog.DiscardHandler),
	})
}

// plugin installs one that speaks these versions.
func (n *node) plugin(name, versions string) {
	n.Helper()
	script := "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[" + versions + "]}'\n"
	if err := os.WriteFile(filepath.Join(n.bin, name), []byte(script), 0o755); err != nil {
		n.Fatal(err)
	}
}

// chain returns the plugins that a runtime would run; nil if it finds no file.
func (n *node) chain() []string {
	n.Helper()
	files, err := libcni.ConfFiles(n.conf, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) == 0 {
		return nil
	}
	l, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		n.Fatal(err)
	}
	var types []string
	for _, p := range l.Plugins {
		types = append(types, p.Network.Type)
	}
	return types
}

func (n *node) keep(i *conflist.Installer, want ...string) {
	n.Helper()
	there, err := i.Keep(n.Context())
	if err != nil || there != (want != nil) || !slices.Equal(n.chain(), want) {
		n.Errorf("there: %v, error %v, the runtime would run %v, want %v", there, err, n.chain(), want)
	}
}

// TestItem18TheFileComesWhenTheNodeCanServeAndStays: installed last, never removed.
func TestItem18TheFileComesWhenTheNodeCanServeAndStays(t *testing.T) {
	n := newNode(t)
	i := n.installer()
	n.keep(i)
	n.ready = nil
	n.keep(i, "korat-cni")
	n.ready = errors.New("a reconciler fails")
	n.keep(i, "korat-cni")
	n.keep(n.installer(), "korat-cni") // a restarted agent that is not ready yet
}

func TestOnlyInstalledPluginsAreChained(t *testing.T) {
	n := newNode(t)
	n.ready = nil
	i := n.installer()
	n.plugin("bandwidth", `"1.0.0"`)
	n.keep(i, "korat-cni", "bandwidth")
	n.plugin("portmap", `"1.0.0"`)
	n.keep(i, "korat-cni", "portmap", "bandwidth")
}

func TestTheVersionsAreThoseThatTheWholeChainSpeaks(t *testing.T) {
	for _, c := range []struct {
		portmap, bandwidth string
		want               []string
	}{
		{`"1.0.0","1.1.0"`, `"0.4.0","1.0.0"`, []string{"1.0.0"}},
		{`"0.4.0","1.0.0","1.1.0"`, `"0.4.0","1.0.0","1.1.0","1.2.0"`, []string{"0.4.0", "1.0.0", "1.1.0"}},
		{`"0.1.0"`, `"1.0.0"`, nil},
	} {
		n := newNode(t)
		n.ready = nil
		n.plugin("portmap", c.portmap)
		n.plugin("bandwidth", c.bandwidth)
		if _, err := n.installer().Keep(t.Context()); (err == nil) != (c.want != nil) {
			t.Errorf("portmap %s, bandwidth %s: %v", c.portmap, c.bandwidth, err)
			continue
		}
		if c.want == nil {
			continue
		}
		n.keep(n.installer(), "korat-cni", "portmap", "bandwidth")
		var l struct{ CNIVersion, CNIVersions any }
		text, err := os.ReadFile(filepath.Join(n.conf, conflist.Name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &l); err != nil || l.CNIVersion != "1.0.0" || fmt.Sprint(l.CNIVersions) != fmt.Sprint(c.want) {
			t.Errorf("offers %v, to old runtimes %v; want %v and 1.0.0", l.CNIVersions, l.CNIVersion, c.want)
		}
	}
}

func TestTheFileIsWrittenAgainWhenSomebodyChangedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.ready = nil
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.installer().Run(ctx) }()
		synctest.Wait()
		for _, harm := range []func(path string) error{
			os.Remove,
			func(path string) error { return os.WriteFile(path, []byte(`{"cniVersion":"0`), 0o644) },
		} {
			if err := harm(filepath.Join(n.conf, conflist.Name)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if got := n.chain(); !slices.Equal(got, []string{"korat-cni"}) {
				t.Errorf("the runtime would run %v", got)
			}
		}
		cancel()
		<-done
	})
}

func TestADirectoryThatCannotBeWrittenIsToldAndLeavesNothingBehind(t *testing.T) {
	n := newNode(t)
	n.ready = nil
	if err := os.WriteFile(n.conf, nil, 0o644); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	if there, err := n.installer().Keep(t.Context()); err == nil || there {
		t.Errorf("there: %v, error %v", there, err)
	}
}

// TestAnotherNetworkIsToldOf: while its file comes first, ours does nothing.
func TestAnotherNetworkIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.ready = nil
		var told bytes.Buffer
		i := n.installer()
		i.Log = slog.New(slog.NewTextHandler(&told, nil))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- i.Run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		other := filepath.Join(n.conf, "10-flannel.conflist")
		if bytes.Contains(told.Bytes(), []byte("another network")) {
			t.Errorf("told of a network that is not there:\n%s", &told)
		}
		if err := os.WriteFile(other, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := bytes.Count(told.Bytes(), []byte("file="+other)); c != 1 {
			t.Errorf("told %d times of %s, want once:\n%s", c, other, &told)
		}
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !bytes.Contains(told.Bytes(), []byte("any more")) {
			t.Errorf("not told that it is gone:\n%s", &told)
		}
		stop()
		<-ended
	})
}
