package cniserver_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sync/errgroup"
)

// TestItem17NothingOfTheConfigurationIsLogged: other plugins of a chain may keep
// credentials in it.
func TestItem17NothingOfTheConfigurationIsLogged(t *testing.T) {
	a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
	conf, err := libcni.ConfListFromBytes(fmt.Appendf(nil,
		`{"cniVersion":"1.0.0","name":"korat","plugins":[{"type":"korat-cni","socket":%q,"kubernetes":{"token":"s3cr3t"}}]}`, filepath.Join(a.run, "cni.sock")))
	if err != nil {
		t.Fatal(err)
	}
	add(t, c, conf, s)
	a.kernel.refuse = errors.New("no")
	if _, err := c.AddNetworkList(t.Context(), conf, newSandbox(t, "c2", "db").rt); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the plugin says %v", err)
	}
	a.kernel.refuse = nil
	if err := c.DelNetworkList(t.Context(), conf, s.rt); err != nil {
		t.Error(err)
	}
	a.stop()
	if text := a.log.String(); !strings.Contains(text, "ADD") || strings.Contains(text, "s3cr3t") {
		t.Errorf("the agent logs %s", text)
	}
}

// TestItem19ABurstOfADDsAllSucceed: no request loses its time in a queue.
func TestItem19ABurstOfADDsAllSucceed(t *testing.T) {
	a, c := newAgent(t), cni(t)
	var g errgroup.Group
	for i := range 40 {
		s := newSandbox(t, fmt.Sprint("c", i), fmt.Sprint("web", i))
		g.Go(func() error {
			_, err := c.AddNetworkList(t.Context(), a.conf("1.0.0"), s.rt)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	got := a.kernel.addrs()
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != 40 {
		t.Errorf("40 pods have %d addresses", len(got))
	}
}
