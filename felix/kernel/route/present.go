package route

import (
	"fmt"
	"slices"
)

// Present returns a line for each of our routes and rules in the network namespace of
// the calling thread, sorted.
func Present() (lines []string, err error) {
	r, err := New()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := r.links.read(); err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	all, err := r.dump()
	if err != nil {
		return nil, err
	}
	for k := range all {
		line := k.prefix.String()
		if r.misplaced(k) {
			line += fmt.Sprintf(" in table %d with metric %d", k.table, k.metric)
		}
		lines = append(lines, line)
	}
	if err := r.readRules(); err != nil {
		return nil, err
	}
	for l := range r.rules {
		lines = append(lines, fmt.Sprintf("rule %d to table %d, for packets from %s", l.Priority, l.Table, l.From))
	}
	slices.Sort(lines)
	return lines, nil
}
