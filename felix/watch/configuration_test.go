package watch

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
	"github.com/koratnet/korat/policy/selector"
)

var equal = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreFields(event.NodeConfiguration{}, "Nodes")}

func TestANodeConfigurationSaysWhatItsObjectSays(t *testing.T) {
	text, err := os.ReadFile("../../api/v1/testdata/valid/nodeconfiguration-full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o := &koratv1.NodeConfiguration{}
	if err := yaml.UnmarshalStrict(text, o); err != nil {
		t.Fatal(err)
	}
	want := &event.NodeConfiguration{
		Name: "racks", Backend: ptr(desired.NFTables), Flavour: ptr(desired.LegacyFlavour), Marks: ptr(uint32(0xff000000)),
		PodToHost: ptr(policy.Pass), Invalid: ptr(policy.Allow), Recheck: ptr(true), Loops: ptr(policy.Pass), DropRecords: ptr(false), MTU: ptr(8950),
		ClampMSS: ptr(true), PodTunnels: ptr(true), TunnelSources: &[]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::1/128")},
		TunnelOffload: ptr(desired.OffloadOff), NodeCondition: ptr(false),
		Encryption: event.EncryptionConfiguration{Mode: ptr(event.Required), Port4: ptr[uint16](4500), Port6: ptr[uint16](4501), Rotation: ptr(24 * time.Hour), Odd4: ptr[uint16](4502), Odd6: ptr[uint16](4503), Hosts: ptr(true)},
		FailsafeIn: &[]desired.Failsafe{
			{Protocol: policy.TCP, Port: 22, Net: netip.MustParsePrefix("10.0.0.0/8")},
			{Protocol: policy.UDP, Port: 68},
		},
		FailsafeOut: &[]desired.Failsafe{},
		Masquerade: event.MasqueradeConfiguration{
			To:    &[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")},
			Ports: &ir.PortRange{First: 32768, Last: 60999}, InsideNodes: ptr(true), InsideNets: &[]netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")},
		},
	}
	_, got := nodeConfiguration(o)
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Error(diff)
	}
	if nodes := got.(*event.NodeConfiguration).Nodes; !nodes.Matches(selector.MakeLabels(map[string]string{"rack": "a"})) || nodes.IsAll() {
		t.Errorf("it selects %v", nodes)
	}
}

func TestANodeConfigurationThatSaysNothing(t *testing.T) {
	_, got := nodeConfiguration(&koratv1.NodeConfiguration{})
	if diff := cmp.Diff(&event.NodeConfiguration{}, got, equal); diff != "" || !got.(*event.NodeConfiguration).Nodes.IsAll() {
		t.Error(diff)
	}
}

func TestANodeConfigurationWithABrokenSelectorIsForNoNode(t *testing.T) {
	o := &koratv1.NodeConfiguration{Spec: koratv1.NodeConfigurationSpec{NodeSelector: "rack =="}}
	if _, got := nodeConfiguration(o); got != nil {
		t.Errorf("it became %+v", got)
	}
}
