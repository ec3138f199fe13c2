package controller

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func TestStatusOfFiltersAndAdvertisements(t *testing.T) {
	run(t)
	tor := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "filtered"}, Spec: koratv1.BGPPeerSpec{Address: "10.1.0.7", ASNumber: 65001, Filters: []string{"late"}}}
	all := &koratv1.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: koratv1.BGPAdvertisementSpec{PeerSelector: "korat.dev/name == 'filtered'", Prefixes: []koratv1.CIDR{"192.0.2.0/24"}}}
	create(t, tor, all)
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionAccepted, `False UnknownFilter: spec.filters[0]: "late"`)
	says(t, all, &all.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	if all.Status.Peers != 1 {
		t.Errorf("the advertisement is told to %d peers, want 1", all.Status.Peers)
	}
	least := int32(4)
	late := &koratv1.BGPFilter{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: koratv1.BGPFilterSpec{Import: []koratv1.BGPFilterRule{
		{Action: koratv1.FilterReject, Prefixes: []koratv1.PrefixMatch{{CIDR: "10.0.0.0/8", MinLength: &least}}},
	}}}
	create(t, late)
	says(t, late, &late.Status.Conditions, koratv1.ConditionAccepted, "False Invalid: spec.import[0].prefixes[0].minLength: 4")
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionAccepted, `False UnknownFilter: spec.filters[0]: BGPFilter "late" is not accepted`)
	least = 24
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(late), late); err != nil {
			return err
		}
		late.Spec.Import[0].Prefixes[0].MinLength = &least
		return admin.Update(ctx, late)
	})
	says(t, late, &late.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
}

func TestReflectorsAreChosenAndGivenUp(t *testing.T) {
	run(t)
	var nodes []*koratv1.NodeNetwork
	for i := range 3 {
		name := fmt.Sprintf("reflecting-%d", i)
		n := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}}
		nodes = append(nodes, n)
		create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: "reflecting"}}}, n)
	}
	cfg := &koratv1.BGPConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec:       koratv1.BGPConfigurationSpec{Reflectors: &koratv1.Reflectors{PerZone: 1}},
	}
	create(t, cfg)
	roles := func(ctx context.Context) (text string, err error) {
		for _, n := range nodes {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(n), n); err != nil {
				return "", err
			}
			if r := n.Spec.Reflection; r != nil {
				text += string(r.Role) + " "
			} else {
				text += "none "
			}
		}
		return text, nil
	}
	becomes := func(want string) {
		t.Helper()
		within(t, func(ctx context.Context) error {
			got, err := roles(ctx)
			if err == nil && got != want {
				err = fmt.Errorf("nodes are %s, want %s", got, want)
			}
			return err
		})
	}
	becomes("Reflector Client Client ")
	if nodes[0].Spec.Reflection.ClusterID != nodes[2].Spec.Reflection.ClusterID {
		t.Errorf("groups are %v and %v", nodes[0].Spec.Reflection, nodes[2].Spec.Reflection)
	}
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(cfg), cfg); err != nil {
			return err
		}
		cfg.Spec.Reflectors = nil
		return admin.Update(ctx, cfg)
	})
	becomes("none none none ")
}
