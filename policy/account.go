package policy

import (
	"strings"

	"github.com/koratnet/korat/policy/selector"
)

// AsksAccount reports whether s may ask for labels of service accounts, so that
// whom it selects cannot be told while they are unknown.
func AsksAccount(s *selector.Selector) bool { return strings.Contains(s.String(), accountPrefix) }
