package report

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func TestALedgerOfHostEndpoints(t *testing.T) {
	l := NewLedger()
	check := func(what string, board status.Snapshot, want ...string) {
		t.Helper()
		var got []string
		for _, h := range l.HostEndpoints(board) {
			got = append(got, fmt.Sprintf("%s %v %v %s", h.Name, h.Interfaces, h.Programmed, h.Problem))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	id := ir.ProgramID{Policy: admin, Direction: policy.Ingress}
	up := &desired.HostEndpoint{Name: "up"}
	up.Forward.Ingress.Tiers = []ir.Tier{{Programs: []ir.ProgramID{id}}}
	l.Note(desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{
		"eth1": up, "eth0": up, desired.AnyInterface: {Name: "rest"},
	}})
	check("before it is applied", status.Snapshot{}, "rest [*] false ", "up [eth0 eth1] false ")
	check("after", status.Snapshot{Applied: 1}, "rest [*] true ", "up [eth0 eth1] true ")
	l.Note(desired.Delta{Programs: map[ir.ProgramID]*ir.Program{id: {ID: id}}})
	check("a policy of one changed", status.Snapshot{Applied: 1}, "rest [*] true ", "up [eth0 eth1] false ")
	l.Note(desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{"eth1": nil, desired.AnyInterface: nil}})
	broken := status.Snapshot{Applied: 3, Reconcilers: []status.Condition{{Reconciler: "nftables", Err: errors.New("no")}}}
	check("the kernel refuses something", broken, "up [eth0] false nftables: no")
	check("and takes it", status.Snapshot{Applied: 3}, "up [eth0] true ")
}
