package router_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/e2e/lab/router"
	"github.com/koratnet/korat/e2e/lab/topology"
)

var update = flag.Bool("update", false, "write the golden files")

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
		golden := filepath.Join("testdata", r.Name+".conf")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
	}
}
