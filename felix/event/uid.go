package event

import (
	"encoding/hex"
	"strings"
)

// UID tells pods of one name apart. The zero UID is not known.
type UID [16]byte

// ParseUID reads the UID of a pod: 32 hexadecimal digits, usually with dashes
// between. Any other text is the zero UID.
func ParseUID(text string) (uid UID) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err == nil && len(b) == len(uid) {
		copy(uid[:], b)
	}
	return uid
}

// May reports whether u and o may be of one pod: they are equal, or one of them
// is not known.
func (u UID) May(o UID) bool { return u == o || u == UID{} || o == UID{} }
