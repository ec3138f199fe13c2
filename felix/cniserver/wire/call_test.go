package wire_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// However a connection cuts a message into pieces, it arrives as it was sent.
func TestCallsAndAnswersArriveAsTheyAre(t *testing.T) {
	for _, config := range []string{"", "{}", strings.Repeat("x", 100), strings.Repeat("y", 3980), strings.Repeat("z", 3*4096)} {
		sent := wire.Call{
			Command: wire.Add, ContainerID: "c1", Netns: "/run/netns/x", IfName: "eth0", Args: "K8S_POD_NAME=web", Path: "/opt/cni/bin",
			NetnsOverride: "1", Config: []byte(config), Assigned: []byte(config),
		}
		var pipe bytes.Buffer
		if err := sent.Send(&pipe); err != nil {
			t.Fatal(err)
		}
		var got wire.Call
		if err := got.Receive(iotest.HalfReader(&pipe)); err != nil {
			t.Fatalf("%d bytes of configuration: %v", len(config), err)
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Errorf("%d bytes of configuration (-sent +received):\n%s", len(config), diff)
		}
		for _, failed := range []bool{false, true} {
			if err := wire.SendAnswer(&pipe, []byte(config), failed); err != nil {
				t.Fatal(err)
			}
			printed, f, err := wire.ReceiveAnswer(iotest.OneByteReader(&pipe))
			if err != nil || string(printed) != config || f != failed {
				t.Errorf("answer of %d bytes: %d bytes, failed %v, %v", len(config), len(printed), f, err)
			}
		}
	}
}

func TestWhatIsNoMessageIsAnError(t *testing.T) {
	var call, answer bytes.Buffer
	if err := (&wire.Call{Command: wire.Del}).Send(&call); err != nil {
		t.Fatal(err)
	}
	if err := wire.SendAnswer(&answer, []byte("{}"), false); err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]string{
		"nothing":                     "",
		"JSON":                        `{"command":"DEL","network":"korat","containerID":"c1"}`,
		"a call that was cut off":     call.String()[:call.Len()-1],
		"an answer that was cut off":  answer.String()[:answer.Len()-1],
		"an empty message":            "\x00\x00\x00\x00",
		"more than was announced":     "\x00\x00\x00\x01ab",
		"fields of another version":   "\x00\x00\x00\x03a\x00b",
		"a length without its length": "\x00\x00",
	} {
		if err := new(wire.Call).Receive(strings.NewReader(m)); err == nil {
			t.Errorf("%s is taken for a call", what)
		}
		if what == "fields of another version" { // an answer has none
			continue
		}
		if printed, _, err := wire.ReceiveAnswer(strings.NewReader(m)); err == nil {
			t.Errorf("%s is taken for an answer: %q", what, printed)
		}
	}
}

func TestACallNamesThePod(t *testing.T) {
	c := wire.Call{Command: wire.Del, ContainerID: "c1", Netns: "n", IfName: "eth0"}
	want := wire.Request{Command: wire.Del, Network: "korat", ContainerID: "c1", Netns: "n", IfName: "eth0", Pod: "c1"}
	if diff := cmp.Diff(want, c.Request("korat")); diff != "" {
		t.Errorf("without Kubernetes (-want +got):\n%s", diff)
	}
	c.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u"
	want.Namespace, want.Pod, want.PodUID = "shop", "web", "u"
	if diff := cmp.Diff(want, c.Request("korat")); diff != "" {
		t.Errorf("with it (-want +got):\n%s", diff)
	}
}
