package event

import "testing"

func TestUIDs(t *testing.T) {
	a := ParseUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	if a == (UID{}) || a != ParseUID("6ba7b8109dad11d180b400c04fd430c8") {
		t.Error("dashes make a difference")
	}
	b := ParseUID("6ba7b810-9dad-11d1-80b4-00c04fd430c9")
	if a.May(b) || !a.May(a) || !a.May(UID{}) || !(UID{}).May(b) {
		t.Error("which pods may be one is wrong")
	}
	for _, text := range []string{"", "u", "6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430cx", "6ba7b810-9dad-11d1-80b4-00c04fd430c8aa"} {
		if ParseUID(text) != (UID{}) {
			t.Errorf("%q is a UID", text)
		}
	}
}
