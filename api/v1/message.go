package v1

import "strings"

// MaxMessage is how long a message in a condition of ours, in an Event or in
// LastError may be, in bytes.
const MaxMessage = 1024

// Shorten returns text in at most so many bytes, which are valid UTF-8. What is
// left out at the end is replaced by "...".
func Shorten(text string, most int) string {
	text = strings.ToValidUTF8(text, "")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}
