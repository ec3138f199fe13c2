package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SessionStatus is a BGP session as one node sees it.
type SessionStatus struct {
	// Peer is the object that asked for the session, in the form that kubectl
	// takes: "bgppeer/tor-a", or "nodenetwork/node-b" in the mesh.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=270
	Peer string `json:"peer"`

	// Address is the IP address of the neighbour.
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address"`

	// ASNumber is the AS expected of the neighbour.
	// +optional
	ASNumber ASNumber `json:"asNumber,omitempty"`

	// State is where the session stands in the state machine of RFC 4271.
	// +required
	State SessionState `json:"state"`

	// Since is when the session came into this state: for Established, the
	// time the session came up. Changes among the other states do not count.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// Received is how many prefixes the neighbour announces to us.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Received int32 `json:"received"`

	// Accepted is how many of these are in use, as filters and pools allow.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Accepted int32 `json:"accepted"`

	// BFD is the state of the BFD session beside it (RFC 5880): Down, Init, Up or
	// AdminDown. Empty if none is asked for.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	BFD string `json:"bfd,omitempty"`

	// Advertised is how many prefixes we announce to the neighbour.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Advertised int32 `json:"advertised"`

	// LastError is why the session last went down or could not come up, such
	// as "connection refused". At most 1024 characters. Empty if it never
	// failed.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`
}

// SessionState is a state of the BGP state machine (RFC 4271).
//
// +kubebuilder:validation:Enum=Idle;Connect;Active;OpenSent;OpenConfirm;Established
type SessionState string

// The states of a BGP session.
const (
	// SessionIdle: nothing is tried, for example after an error.
	SessionIdle SessionState = "Idle"
	// SessionConnect: we are calling the neighbour.
	SessionConnect SessionState = "Connect"
	// SessionActive: we wait for the neighbour to call, and try again soon.
	SessionActive SessionState = "Active"
	// SessionOpenSent: TCP is up, our OPEN is sent.
	SessionOpenSent SessionState = "OpenSent"
	// SessionOpenConfirm: both OPENs fit, the first KEEPALIVE is awaited.
	SessionOpenConfirm SessionState = "OpenConfirm"
	// SessionEstablished: routes are exchanged.
	SessionEstablished SessionState = "Established"
)

// The two beginnings of SessionStatus.Peer, to be followed by the name of the
// object that asked for the session.
const (
	// SessionPeerBGPPeer starts the peer of a session that a BGPPeer asks for.
	SessionPeerBGPPeer = "bgppeer/"
	// SessionPeerNode starts the peer of a session of the node-to-node mesh.
	SessionPeerNode = "nodenetwork/"
)
