package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/charts"
	"github.com/koratnet/korat/e2e/lab/topology"
)

//go:embed manifests/node-runner.yaml
var runnerRights []byte

// Owner is the name under which the lab applies objects.
const Owner = "korat-lab"

// Apply makes or updates an object, of which only the fields given are touched.
func (l *Lab) Apply(ctx context.Context, o client.Object) error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return err
		}
		u = &unstructured.Unstructured{Object: content}
		gvk, err := l.Client.GroupVersionKindFor(o)
		if err != nil {
			return err
		}
		u.SetGroupVersionKind(gvk)
	}
	// A typed object carries an empty status and creation time, which are not ours to set.
	unstructured.RemoveNestedField(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	err := l.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(Owner), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}

// ApplyYAML applies every document of a file of manifests.
func (l *Lab) ApplyYAML(ctx context.Context, text []byte) error {
	return l.ApplyEdited(ctx, text, func(*unstructured.Unstructured) error { return nil })
}

// ApplyEdited applies every document of a file of manifests as edit leaves it.
func (l *Lab) ApplyEdited(ctx context.Context, text []byte, edit func(*unstructured.Unstructured) error) error {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(u.Object) == 0 {
			continue // a document of comments
		}
		if err := edit(u); err != nil {
			return err
		}
		if err := l.Apply(ctx, u); err != nil {
			return err
		}
	}
}

// applyObjects makes the cluster know Korat's kinds and the lab's network.
func (l *Lab) applyObjects(ctx context.Context) error {
	if err := l.ApplyCRDs(ctx); err != nil {
		return err
	}
	for _, text := range [][]byte{charts.RBAC, runnerRights} {
		if err := l.ApplyYAML(ctx, text); err != nil {
			return err
		}
	}
	return l.ApplyNetwork(ctx)
}

// ApplyCRDs defines Korat's kinds.
func (l *Lab) ApplyCRDs(ctx context.Context) error {
	files, err := fs.Glob(charts.CRDs, "korat/crds/*.yaml")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := charts.CRDs.ReadFile(f)
		if err != nil {
			return err
		}
		if err := l.ApplyYAML(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// ApplyNetwork tells Korat what the topology says. Its kinds must be defined.
func (l *Lab) ApplyNetwork(ctx context.Context) error {
	for _, o := range networkObjects(l.Topology) {
		// The API server needs a moment to serve a kind after its definition.
		if err := Eventually(ctx, func(ctx context.Context) error { return l.Apply(ctx, o) }); err != nil {
			return err
		}
	}
	return nil
}

// networkObjects say in Korat's own terms what the topology says. The pools
// are the controller's to make.
func networkObjects(t *topology.Topology) []client.Object {
	name := func(n string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: n} }
	out := []client.Object{&v1.BGPConfiguration{ObjectMeta: name("default")}}
	for _, n := range t.Nodes() {
		out = append(out, &v1.NodeNetwork{ObjectMeta: name(n.Name), Spec: v1.NodeNetworkSpec{ASNumber: v1.ASNumber(n.Rack.ASNumber)}})
	}
	for i := range t.Racks {
		r := &t.Racks[i]
		out = append(out, peers(r, "", r.Gateways(false), t.BFD)...)
		if t.Pool6.IsValid() {
			out = append(out, peers(r, "-v6", r.Gateways(true), t.BFD)...)
		}
	}
	return out
}

// peers make the nodes of a rack talk to its routers, with an interval of BFD in
// milliseconds, 0: without.
func peers(r *topology.Rack, suffix string, gateways []netip.Prefix, bfd int) []client.Object {
	var out []client.Object
	for i, gw := range gateways {
		peer := &v1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: r.ToRs[i].Name + suffix}, Spec: v1.BGPPeerSpec{
			NodeSelector: fmt.Sprintf("%s == '%s'", RackLabel, r.Name),
			Address:      gw.Addr().String(),
			ASNumber:     v1.ASNumber(r.ToRs[i].ASNumber),
		}}
		for _, a := range r.Advertise {
			peer.Spec.Advertise = append(peer.Spec.Advertise, v1.Advertise(a))
		}
		if bfd != 0 {
			d := &metav1.Duration{Duration: time.Duration(bfd) * time.Millisecond}
			peer.Spec.BFD = &v1.BFD{TransmitInterval: d, ReceiveInterval: d}
		}
		out = append(out, peer)
	}
	return out
}

// RackLabel is the label of a Node that names its rack.
const RackLabel = "rack"

// key is how a client asks for a namespaced object.
func key(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// List fills the lists with all objects of their kinds.
func (l *Lab) List(ctx context.Context, lists ...client.ObjectList) error {
	for _, list := range lists {
		if err := l.Client.List(ctx, list); err != nil {
			return fmt.Errorf("list %T: %w", list, err)
		}
	}
	return nil
}
