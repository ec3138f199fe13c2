package v1

import "k8s.io/apimachinery/pkg/util/intstr"

// Rule says what happens to the packets that it matches. A packet matches if
// it satisfies every criterion that is set; a rule without any matches all.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.icmp) || has(self.protocol) && (self.protocol in ['ICMP', 'ICMPv6'] || self.protocol in [1, 58])`,message="icmp is set for another protocol, expected protocol ICMP or ICMPv6",fieldPath=".icmp"
// +kubebuilder:validation:XValidation:rule=`!has(self.notICMP) || has(self.protocol) && (self.protocol in ['ICMP', 'ICMPv6'] || self.protocol in [1, 58])`,message="notICMP is set for another protocol, expected protocol ICMP or ICMPv6",fieldPath=".notICMP"
// +kubebuilder:validation:XValidation:rule=`!has(self.ipVersion) || !has(self.protocol) || self.ipVersion != 6 || self.protocol != 'ICMP' && self.protocol != 1`,message="IPv6 has no ICMP, expected 4 or none, or protocol ICMPv6",fieldPath=".ipVersion"
// +kubebuilder:validation:XValidation:rule=`!has(self.ipVersion) || !has(self.protocol) || self.ipVersion != 4 || self.protocol != 'ICMPv6' && self.protocol != 58`,message="IPv4 has no ICMPv6, expected 6 or none, or protocol ICMP",fieldPath=".ipVersion"
// +kubebuilder:validation:XValidation:rule=`!has(self.source) || !has(self.source.ports) || has(self.protocol) && (self.protocol in ['TCP', 'UDP', 'SCTP'] || self.protocol in [6, 17, 132])`,message="ports are set for a protocol without ports, expected protocol TCP, UDP or SCTP",fieldPath=".source.ports"
// +kubebuilder:validation:XValidation:rule=`!has(self.source) || !has(self.source.notPorts) || has(self.protocol) && (self.protocol in ['TCP', 'UDP', 'SCTP'] || self.protocol in [6, 17, 132])`,message="ports are set for a protocol without ports, expected protocol TCP, UDP or SCTP",fieldPath=".source.notPorts"
// +kubebuilder:validation:XValidation:rule=`!has(self.destination) || !has(self.destination.ports) || has(self.protocol) && (self.protocol in ['TCP', 'UDP', 'SCTP'] || self.protocol in [6, 17, 132])`,message="ports are set for a protocol without ports, expected protocol TCP, UDP or SCTP",fieldPath=".destination.ports"
// +kubebuilder:validation:XValidation:rule=`!has(self.destination) || !has(self.destination.notPorts) || has(self.protocol) && (self.protocol in ['TCP', 'UDP', 'SCTP'] || self.protocol in [6, 17, 132])`,message="ports are set for a protocol without ports, expected protocol TCP, UDP or SCTP",fieldPath=".destination.notPorts"
// +kubebuilder:validation:XValidation:rule=`!has(self.ipVersion) || !has(self.source) || !has(self.source.nets) || self.source.nets.all(n, n.contains(':') == (self.ipVersion == 6))`,message="a net is of the other family than ipVersion, expected nets of that family only",fieldPath=".source.nets"
// +kubebuilder:validation:XValidation:rule=`!has(self.ipVersion) || !has(self.source) || !has(self.source.notNets) || self.source.notNets.all(n, n.contains(':') == (self.ipVersion == 6))`,message="a net is of the other family than ipVersion, expected nets of that family only",fieldPath=".source.notNets"
// +kubebuilder:validation:XValidation:rule=`!has(self.ipVersion) || !has(self.destination) || !has(self.destination.nets) || self.destination.nets.all(n, n.contains(':') == (self.ipVersion == 6))`,message="a net is of the other family than ipVersion, expected nets of that family only",fieldPath=".destination.nets"
// +kubebuilder:validation:XValidation:rule=`!has(self.ipVersion) || !has(self.destination) || !has(self.destination.notNets) || self.destination.notNets.all(n, n.contains(':') == (self.ipVersion == 6))`,message="a net is of the other family than ipVersion, expected nets of that family only",fieldPath=".destination.notNets"
type Rule struct {
	// Action is what happens to a packet that matches. Allow: it is accepted
	// in this direction. Deny: it is dropped. Pass: the rest of the tier is
	// skipped, the next tier decides. Log: it is written to the kernel log,
	// and the next rule is asked.
	// +required
	Action RuleAction `json:"action"`

	// IPVersion restricts the rule to packets of one family: 4 or 6. Default:
	// both.
	// +optional
	// +kubebuilder:validation:Enum=4;6
	IPVersion int32 `json:"ipVersion,omitempty"`

	// Protocol restricts the rule to one protocol: TCP, UDP, SCTP, ICMP,
	// ICMPv6, UDPLite or a number from 1 to 255. Default: any. Ports need TCP,
	// UDP or SCTP.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=7
	// +kubebuilder:validation:Pattern=`^(TCP|UDP|SCTP|ICMP|ICMPv6|UDPLite)$`
	Protocol *intstr.IntOrString `json:"protocol,omitempty"`

	// NotProtocol restricts the rule to packets of any protocol but this one.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=7
	// +kubebuilder:validation:Pattern=`^(TCP|UDP|SCTP|ICMP|ICMPv6|UDPLite)$`
	NotProtocol *intstr.IntOrString `json:"notProtocol,omitempty"`

	// ICMP restricts the rule to one type of message of the protocol, which
	// must be ICMP or ICMPv6.
	// +optional
	ICMP *ICMPMatch `json:"icmp,omitempty"`

	// NotICMP restricts the rule to messages of the protocol, which must be
	// ICMP or ICMPv6, of any type and code but these.
	// +optional
	NotICMP *ICMPMatch `json:"notICMP,omitempty"`

	// Source is where the packet comes from. Of an egress rule that is the
	// selected endpoint itself.
	// +optional
	Source RuleEnd `json:"source,omitzero"`

	// Destination is where the packet goes to, after the translation of
	// service addresses. Of an ingress rule that is the selected endpoint
	// itself.
	// +optional
	Destination RuleEnd `json:"destination,omitzero"`
}

// RuleAction is what a rule does with a packet that it matches.
//
// +kubebuilder:validation:Enum=Allow;Deny;Log;Pass
type RuleAction string

// The actions of rules.
const (
	// ActionAllow accepts the packet in this direction.
	ActionAllow RuleAction = "Allow"
	// ActionDeny drops the packet.
	ActionDeny RuleAction = "Deny"
	// ActionLog writes the packet to the kernel log and asks the next rule.
	ActionLog RuleAction = "Log"
	// ActionPass skips the rest of the tier.
	ActionPass RuleAction = "Pass"
)

// ICMPMatch is a type of ICMP or ICMPv6 message, with or without its code.
type ICMPMatch struct {
	// Type is the type of the message: 0 to 254. Echo requests are 8 in ICMP
	// and 128 in ICMPv6.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=254
	Type int32 `json:"type"`

	// Code is the code of the message: 0 to 255. Default: any.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	Code *int32 `json:"code,omitempty"`
}

// RuleEnd is one end of a connection. An address matches if it satisfies every
// criterion that is set.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.services) || !has(self.nets) && !has(self.notNets) && !has(self.selector) && !has(self.notSelector) && !has(self.namespaceSelector) && !has(self.serviceAccounts)`,message="services stands beside nets, selectors or serviceAccounts, expected it alone: services say which addresses match",fieldPath=".services"
type RuleEnd struct {
	// Nets are ranges of which one must contain the address. Addresses of pods
	// count like any other. At most 256.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Nets []Net `json:"nets,omitempty"`

	// NotNets are ranges of which none may contain the address. At most 256.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	NotNets []Net `json:"notNets,omitempty"`

	// Selector chooses endpoints and network sets by their labels, for example
	// "app == 'db'": the address must belong to one of them. In a
	// NetworkPolicy only those of its own namespace, unless namespaceSelector
	// says otherwise.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`

	// NotSelector chooses endpoints and network sets to which the address must
	// not belong. Addresses that belong to nobody known satisfy it.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NotSelector string `json:"notSelector,omitempty"`

	// NamespaceSelector chooses the namespaces in which the selectors and the
	// service accounts of this end look, by the labels of the namespaces;
	// "all()" is every namespace, "global()" is what has none: host endpoints
	// and GlobalNetworkSets. Default: in a NetworkPolicy its own namespace, in
	// a GlobalNetworkPolicy everything.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// Ports are those of which the packet must have one: numbers from 1 to
	// 65535, ranges such as "8000:8999", or names of ports of the endpoint. At
	// most 50. Needs protocol TCP, UDP or SCTP.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:XIntOrString
	// +kubebuilder:validation:items:MaxLength=15
	// +kubebuilder:validation:items:Pattern=`^([1-9][0-9]{0,4}:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])|[a-z0-9-]*[a-z][a-z0-9-]*)$`
	Ports []intstr.IntOrString `json:"ports,omitempty"`

	// NotPorts are those of which the packet may have none, written like
	// ports. At most 50. Needs protocol TCP, UDP or SCTP.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:XIntOrString
	// +kubebuilder:validation:items:MaxLength=15
	// +kubebuilder:validation:items:Pattern=`^([1-9][0-9]{0,4}:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])|[a-z0-9-]*[a-z][a-z0-9-]*)$`
	NotPorts []intstr.IntOrString `json:"notPorts,omitempty"`

	// Services names a Kubernetes Service: the address must be one of its
	// endpoints', ready or not. As destination of an egress rule the protocol
	// and the port must be the endpoint's too; as source of an ingress rule
	// they do not matter. Not anywhere else, and not beside nets, selectors or
	// service accounts.
	// +optional
	Services *ServiceMatch `json:"services,omitempty"`

	// ServiceAccounts restricts the end to pods that run as one of these
	// service accounts.
	// +optional
	ServiceAccounts *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
}

// ServiceMatch names a Kubernetes Service.
type ServiceMatch struct {
	// Name of the Service.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Namespace of the Service. Default: that of the policy; required in a
	// GlobalNetworkPolicy, which has none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// ServiceAccountMatch chooses service accounts by name, by label, or by both.
//
// +kubebuilder:validation:XValidation:rule=`has(self.names) || has(self.selector)`,message="empty, expected names, a selector or both"
type ServiceAccountMatch struct {
	// Names are those of which the service account must have one. At most 256.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Names []string `json:"names,omitempty"`

	// Selector chooses service accounts by their labels, for example
	// "team == 'billing'".
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`
}
