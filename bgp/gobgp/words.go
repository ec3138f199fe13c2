package gobgp

import (
	"strings"

	"github.com/osrg/gobgp/v4/api"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// dialWords says why a connection could not be made.
func dialWords(err string) string {
	for _, w := range []struct{ in, out string }{
		{"connection refused", "connection refused: nobody listens on the neighbour's port"},
		{"no route to host", "no route to host"},
		{"network is unreachable", "network is unreachable: no route to the neighbour"},
		{"cannot assign requested address", "the local address is not an address of this node"},
		{"i/o timeout", noAnswer},
		{"connection reset", "the neighbour reset the connection: it may not know this node as a peer"},
	} {
		if strings.Contains(err, w.in) {
			return w.out
		}
	}
	return err
}

const noAnswer = "no answer to the connection attempt"

// notificationWords says what a NOTIFICATION means, sent or received.
func notificationWords(sent bool, code, subcode uint8) string {
	words := packet.NewNotificationErrorCode(code, subcode).String()
	switch {
	case code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == packet.BGP_ERROR_SUB_BAD_PEER_AS:
		words = "AS mismatch: the AS number in the OPEN is not the configured one"
	case code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == packet.BGP_ERROR_SUB_BAD_BGP_IDENTIFIER:
		words = "bad router ID: both sides may have the same"
	case code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == packet.BGP_ERROR_SUB_UNACCEPTABLE_HOLD_TIME:
		words = "unacceptable hold time"
	case code == packet.BGP_ERROR_HOLD_TIMER_EXPIRED:
		words = "hold timer expired"
	case code == packet.BGP_ERROR_CEASE:
		words = ceaseWords(subcode)
	}
	if sent {
		return words
	}
	return "the neighbour says: " + words
}

func ceaseWords(subcode uint8) string {
	switch subcode {
	case packet.BGP_ERROR_SUB_MAXIMUM_NUMBER_OF_PREFIXES_REACHED:
		return "too many prefixes"
	case packet.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN:
		return "administrative shutdown"
	case packet.BGP_ERROR_SUB_PEER_DECONFIGURED:
		return "peer removed from the configuration"
	case packet.BGP_ERROR_SUB_ADMINISTRATIVE_RESET:
		return "administrative reset"
	case packet.BGP_ERROR_SUB_CONNECTION_REJECTED:
		return "connection rejected"
	case packet.BGP_ERROR_SUB_OTHER_CONFIGURATION_CHANGE:
		return "configuration changed"
	case packet.BGP_ERROR_SUB_HARD_RESET:
		return "hard reset"
	default:
		return packet.NewNotificationErrorCode(packet.BGP_ERROR_CEASE, subcode).String()
	}
}

// downWords says why a session ended, as far as its state machine knows. known
// is what is known already: a NOTIFICATION says more than the state machine.
func downWords(reason api.PeerState_DisconnectReason, known string) string {
	switch reason {
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return "hold timer expired"
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		return "connection lost"
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return notificationWords(true, packet.BGP_ERROR_OPEN_MESSAGE_ERROR, packet.BGP_ERROR_SUB_BAD_PEER_AS)
	case api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED:
		return "connection lost, and not back within the restart time"
	case api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		if known == "" {
			return "connection lost; its routes are kept for the restart time"
		}
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		if known == "" {
			return "the neighbour ended the session after our OPEN: compare AS numbers and capabilities"
		}
	}
	return ""
}
