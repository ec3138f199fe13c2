package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

var (
	db    = policy.Key{Kind: policy.NetworkPolicy, Namespace: "shop", Name: "db"}
	admin = policy.Key{Kind: policy.GlobalNetworkPolicy, Name: "admin"}
	plain = policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: "plain"}
)

// endpoint is one about which the policies decide.
func endpoint(iface string, keys ...policy.Key) *desired.Endpoint {
	ep := &desired.Endpoint{Interface: iface, Pod: "shop/" + iface}
	for _, k := range keys {
		ep.Ingress.Tiers = append(ep.Ingress.Tiers, ir.Tier{Programs: []ir.ProgramID{{Policy: k, Direction: policy.Ingress}}})
	}
	return ep
}

func uses(of map[policy.Key]*desired.PolicyUse) desired.Delta { return desired.Delta{Policies: of} }

// told renders what the ledger says of each policy.
func told(l *Ledger, board status.Snapshot) (lines []string) {
	list, _ := l.Policies(board)
	for _, p := range list {
		line := fmt.Sprintf("%s %s/%s generation %d endpoints %d", p.Kind, p.Namespace, p.Name, p.Generation, p.Endpoints)
		if p.Programmed {
			line += " programmed"
		}
		if p.Problem != "" {
			line += " but " + p.Problem
		}
		lines = append(lines, line)
	}
	return lines
}

func TestALedgerOfPolicies(t *testing.T) {
	l := NewLedger()
	check := func(what string, board status.Snapshot, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, told(l, board)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	d := uses(map[policy.Key]*desired.PolicyUse{db: {Generation: 1, Pods: 2}, admin: {Generation: 4, Pods: 2, Hosts: 1}, plain: {Pods: 2}})
	d.Endpoints = map[string]*desired.Endpoint{"kor1": endpoint("kor1", db, admin), "kor2": endpoint("kor2", admin)}
	l.Note(d)
	const (
		global = "GlobalNetworkPolicy /admin generation 4 endpoints 3"
		own    = "NetworkPolicy shop/db generation 1 endpoints 2"
	)
	check("before the kernel was asked", status.Snapshot{}, global, own)
	check("applied", status.Snapshot{Applied: 1}, global+" programmed", own+" programmed")
	check("with a closed pod", status.Snapshot{Applied: 1, ClosedEndpoints: map[string]string{"kor2": "no rules"}},
		global+" but pod shop/kor2: no rules", own+" programmed")
	check("with a kernel that fails", status.Snapshot{Applied: 1, Reconcilers: []status.Condition{
		{Reconciler: "bgp", Err: errors.New("no neighbour")}, {Reconciler: "iptables-ipv4", Err: errors.New("locked")},
	}}, global+" but iptables-ipv4: locked", own+" programmed")

	l.Note(desired.Delta{Programs: map[ir.ProgramID]*ir.Program{{Policy: db, Direction: policy.Ingress}: {}}})
	check("with new rules", status.Snapshot{Applied: 1}, global+" programmed", own)
	l.Note(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor3": endpoint("kor3", admin)}})
	check("with a new pod", status.Snapshot{Applied: 2}, global, own+" programmed")
	l.Note(uses(map[policy.Key]*desired.PolicyUse{db: {Generation: 2, Pods: 2, Staged: true}, admin: nil}))
	check("staged, and gone", status.Snapshot{Applied: 4}, "NetworkPolicy shop/db generation 2 endpoints 2")

	if diff := cmp.Diff(map[string]int{"knp": 1, "np": 1}, l.Count()); diff != "" {
		t.Error(diff)
	}
}

// TestANodeOfManyPoliciesFitsIntoItsObject: the longest names and messages there
// are, JSON as it is stored.
func TestANodeOfManyPoliciesFitsIntoItsObject(t *testing.T) {
	l := NewLedger()
	d := uses(map[policy.Key]*desired.PolicyUse{})
	var keys []policy.Key
	for i := range koratv1.MaxNodePolicies + 7 {
		key := policy.Key{Kind: policy.NetworkPolicy, Namespace: strings.Repeat("n", 63), Name: fmt.Sprintf("%0253d", i)}
		keys = append(keys, key)
		d.Policies[key] = &desired.PolicyUse{Generation: 1 << 40, Pods: 1 << 20}
	}
	d.Endpoints = map[string]*desired.Endpoint{"kor1": endpoint("kor1", keys...)}
	l.Note(d)
	list, leftOut := l.Policies(status.Snapshot{ClosedEndpoints: map[string]string{"kor1": strings.Repeat("ü", 1000)}})
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != koratv1.MaxNodePolicies || leftOut != 7 || len(text) > 750_000 {
		t.Errorf("%d policies and %d left out, %d bytes", len(list), leftOut, len(text))
	}
	if n := len(list[0].Problem); n > koratv1.MaxProblem || n < koratv1.MaxProblem-8 {
		t.Errorf("a problem of %d bytes", n)
	}
}
