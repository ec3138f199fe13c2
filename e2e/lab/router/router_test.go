package router_test

import (
	"path/filepath"
	"testing"

	"github.com/koratnet/korat/e2e/lab/router"
	"github.com/koratnet/korat/e2e/lab/topology"
	"github.com/koratnet/korat/hack/golden"
)

func TestConfigOfTheDefaultTopology(t *testing.T) {
	top, err := topology.Load("../topologies/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range top.Routers() {
		got, err := router.Config(r)
		if err != nil {
			t.Fatal(err)
		}
		golden.Compare(t, filepath.Join("testdata", r.Name+".conf"), got)
	}
}
