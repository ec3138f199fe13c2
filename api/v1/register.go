package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "korat.dev", Version: "v1"}

// SchemeBuilder collects the functions that make this package's kinds known
// to a runtime.Scheme.
var SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme makes the kinds of this package known to a scheme. Calling it
// twice on one scheme is harmless.
var AddToScheme = SchemeBuilder.AddToScheme

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&IPPool{}, &IPPoolList{},
		&IPReservation{}, &IPReservationList{},
		&Block{}, &BlockList{},
		&NodeNetwork{}, &NodeNetworkList{},
		&BGPConfiguration{}, &BGPConfigurationList{},
		&BGPPeer{}, &BGPPeerList{},
		&BGPFilter{}, &BGPFilterList{},
		&BGPAdvertisement{}, &BGPAdvertisementList{},
		&Tier{}, &TierList{},
		&NetworkPolicy{}, &NetworkPolicyList{},
		&GlobalNetworkPolicy{}, &GlobalNetworkPolicyList{},
		&NetworkSet{}, &NetworkSetList{},
		&GlobalNetworkSet{}, &GlobalNetworkSetList{},
		&HostEndpoint{}, &HostEndpointList{},
		&NodeConfiguration{}, &NodeConfigurationList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
