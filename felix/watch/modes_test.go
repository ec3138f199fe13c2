package watch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// TestAWordFromTheFutureEncrypts: an agent that does not know a mode sends nothing in
// clear.
func TestAWordFromTheFutureEncrypts(t *testing.T) {
	for word, want := range map[koratv1.EncryptionMode]event.Encryption{
		koratv1.EncryptionDisabled: event.Disabled, koratv1.EncryptionPreferred: event.Preferred, koratv1.EncryptionRequired: event.Required, "Quantum": event.Required,
	} {
		if got := encryptionMode(word); got == nil || *got != want {
			t.Errorf("%s is %v, want %v", word, got, want)
		}
	}
	if got := encryptionMode(""); got != nil {
		t.Errorf("no word is %v", *got)
	}
	for word, want := range map[koratv1.PoolEncryption]bool{"": false, koratv1.PoolEncryptionNone: false, koratv1.PoolEncryptionRequired: true, "Quantum": true} {
		if got := poolEncrypted(word); got != want {
			t.Errorf("%q of a pool is %v, want %v", word, got, want)
		}
	}
}

func TestOnlyEndsThatAreWholeCount(t *testing.T) {
	key := desired.Key{1}
	whole := koratv1.WireGuardStatus{Interface: "wg6-korat", PublicKey: key.String(), Port: 51821}
	list := []koratv1.WireGuardStatus{whole}
	for _, breaks := range []func(*koratv1.WireGuardStatus){
		func(s *koratv1.WireGuardStatus) { s.Interface = "wg9-korat" },
		func(s *koratv1.WireGuardStatus) { s.Interface = "vxlan4-korat" },
		func(s *koratv1.WireGuardStatus) { s.PublicKey = "AQ==" },
		func(s *koratv1.WireGuardStatus) { s.PublicKey = desired.Key{}.String() },
		func(s *koratv1.WireGuardStatus) { s.Port = 70000 },
	} {
		s := whole
		breaks(&s)
		list = append(list, s)
	}
	want := []event.WireGuardEnd{{EncryptedEnd: desired.EncryptedEnd{Kind: desired.WireGuard6, Key: key}, Port: 51821}}
	if diff := cmp.Diff(want, wireGuardEnds(list)); diff != "" {
		t.Error(diff)
	}
}
