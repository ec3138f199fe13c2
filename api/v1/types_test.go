package v1

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apischema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// roundTrip sends a Go object through the schema of its kind, as a client and
// an API server would, and returns the mistakes and what the client reads back.
func roundTrip[T runtime.Object](t *testing.T, kinds map[string]kindSchema, kind string, in, out T) []error {
	t.Helper()
	in.GetObjectKind().SetGroupVersionKind(GroupVersion.WithKind(kind))
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	errs := kindOf(t, kinds, o).create(t.Context(), o)
	if text, err = json.Marshal(o); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, out); err != nil {
		t.Fatalf("reading %s: %v", text, err)
	}
	return errs
}

func TestDefaultsOfTheSchemaAreTheConstants(t *testing.T) {
	kinds := loadSchemas(t)

	var conf BGPConfiguration
	noMistakes(t, roundTrip(t, kinds, "BGPConfiguration", &BGPConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: BGPConfigurationName},
	}, &conf))
	if diff := cmp.Diff(BGPConfigurationSpec{
		ASNumber:        DefaultASNumber,
		NodeToNodeMesh:  MeshEnabled,
		ListenPort:      DefaultBGPPort,
		GracefulRestart: GracefulRestart{RestartTime: &metav1.Duration{Duration: DefaultRestartTime}},
		DrainOn:         DrainOnAnnotation,
		LoadBalancers:   LoadBalancersClassed,
		KernelRoutes:    KernelRoutes{Table: DefaultRouteTable},
	}, conf.Spec); diff != "" {
		t.Errorf("BGPConfiguration (-want +got):\n%s", diff)
	}

	var peer BGPPeer
	noMistakes(t, roundTrip(t, kinds, "BGPPeer", &BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: "tor-a"},
		Spec:       BGPPeerSpec{Address: "192.168.1.1", ASNumber: 65001},
	}, &peer))
	if diff := cmp.Diff(BGPPeerSpec{
		Address:   "192.168.1.1",
		Port:      DefaultBGPPort,
		ASNumber:  65001,
		Advertise: []Advertise{AdvertiseBlocks},
		HoldTime:  &metav1.Duration{Duration: DefaultHoldTime},

		SourceAddress: SourceNodeIP, NextHop: NextHopAuto, AddPathsCapability: SwitchEnabled,
	}, peer.Spec); diff != "" {
		t.Errorf("BGPPeer (-want +got):\n%s", diff)
	}
}

// The schema cannot hold the default block size, because it depends on the
// family, but its rules know it: a pool of exactly one default block is the
// smallest that they accept.
func TestDefaultBlockSizeIsTheOneOfTheRules(t *testing.T) {
	kinds := loadSchemas(t)
	for _, pool := range []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")} {
		size := DefaultBlockSize(pool)
		for bits, accepted := range map[int]bool{size: true, size + 1: false} {
			in := &IPPool{
				ObjectMeta: metav1.ObjectMeta{Name: "pods"},
				Spec:       IPPoolSpec{CIDR: CIDR(netip.PrefixFrom(pool.Addr(), bits).String())},
			}
			errs := roundTrip(t, kinds, "IPPool", in, &IPPool{})
			if got := len(errs) == 0; got != accepted {
				t.Errorf("%s accepted: %t, want %t: %v", in.Spec.CIDR, got, accepted, errs)
			}
		}
	}
}

func TestStatusThatKoratWritesIsAccepted(t *testing.T) {
	kinds := loadSchemas(t)
	now := metav1.NewTime(time.Unix(1767225600, 0).UTC())
	conditions := []metav1.Condition{{
		Type: ConditionReady, Status: metav1.ConditionTrue, Reason: ReasonProgrammed, LastTransitionTime: now,
	}}
	in := &NodeNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a1"},
		Status: NodeNetworkStatus{
			Conditions:     conditions,
			Addresses:      []string{"192.168.1.11/24", "fd00:1::11/64"},
			ASNumber:       DefaultASNumber,
			Backend:        "iptables",
			AgentVersion:   "v0.1.0",
			SessionSummary: "1/2",
			Sessions: []SessionStatus{
				{Peer: SessionPeerBGPPeer + "tor-a", Address: "192.168.1.1", ASNumber: 65001, State: SessionEstablished, Since: &now, Received: 3, Advertised: 1},
				{Peer: SessionPeerNode + "node-a2", Address: "192.168.1.12", ASNumber: DefaultASNumber, State: SessionActive, LastError: "connection refused"},
			},
		},
	}
	var out NodeNetwork
	noMistakes(t, roundTrip(t, kinds, "NodeNetwork", in, &out))
	if diff := cmp.Diff(in, &out); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}

	for name, errs := range map[string][]error{
		"IPPool": roundTrip(t, kinds, "IPPool", &IPPool{
			Spec:   IPPoolSpec{CIDR: "10.244.0.0/16"},
			Status: IPPoolStatus{Conditions: conditions, BlockSize: DefaultBlockSizeV4, Capacity: 65536, Used: "0/65536"},
		}, &IPPool{}),
		"BGPPeer": roundTrip(t, kinds, "BGPPeer", &BGPPeer{
			Spec:   BGPPeerSpec{Address: "192.168.1.1", ASNumber: 65001},
			Status: BGPPeerStatus{Conditions: conditions, Sessions: "0/0"},
		}, &BGPPeer{}),
	} {
		if len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestBlockStatusHoldsTheLargestBlockAndNoMore(t *testing.T) {
	kinds := loadSchemas(t)
	full := func(n int) *Block {
		b := &Block{
			ObjectMeta: metav1.ObjectMeta{Name: "10-244-0-0-20"},
			Spec:       BlockSpec{CIDR: "10.244.0.0/20", Pool: "pods", Node: "node-a1", NodeUID: "u", JournalID: "j"},
			Status:     BlockStatus{Allocated: int32(min(n, 4096))},
		}
		addr := netip.MustParseAddr("10.244.0.0")
		for range n {
			b.Status.Addresses = append(b.Status.Addresses, BlockAddress{Address: addr.String(), Pod: "default/web"})
			addr = addr.Next()
		}
		return b
	}
	noMistakes(t, roundTrip(t, kinds, "Block", full(4096), &Block{}))
	wantRefusal(t, "status.addresses: Too many: 4097: must have at most 4096 items",
		roundTrip(t, kinds, "Block", full(4097), &Block{}))

	twice := full(2)
	twice.Status.Addresses[1].Address = twice.Status.Addresses[0].Address
	wantRefusal(t, `status.addresses[1]: Duplicate value: {"address":"10.244.0.0"}`,
		roundTrip(t, kinds, "Block", twice, &Block{}))
}

func TestEveryFieldExplainsItself(t *testing.T) {
	for kind, k := range loadSchemas(t) {
		explained(t, strings.ToLower(kind), k.structural)
	}
}

// explained fails the test for every property below s without a description.
func explained(t *testing.T, path string, s *apischema.Structural) {
	t.Helper()
	for name, p := range s.Properties {
		if name == "metadata" {
			continue
		}
		if p.Description == "" {
			t.Errorf("%s.%s has no description", path, name)
		}
		explained(t, path+"."+name, &p)
	}
	if s.Items != nil {
		explained(t, path+"[]", s.Items)
	}
}

func TestSchemeKnowsEveryKindAndItsList(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for kind := range loadSchemas(t) {
		for _, name := range []string{kind, kind + "List"} {
			if _, err := s.New(GroupVersion.WithKind(name)); err != nil {
				t.Error(err)
			}
		}
	}
}
