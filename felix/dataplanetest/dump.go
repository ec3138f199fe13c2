package dataplanetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// Rules puts what iptables-save prints into an order that does not depend on
// history: tables and chains by name. Chains that are built in are there only
// with rules, and counters and comments of the listing are not.
func Rules(saved string) string {
	chains, table := map[string]string{}, ""
	for line := range strings.Lines(saved) {
		switch fields := strings.Fields(line); {
		case line[0] == '*':
			table = strings.TrimSpace(line) + " "
		case line[0] == ':' && fields[1] == "-":
			chains[table+fields[0][1:]] += "\n"
		case line[0] == '-':
			chains[table+fields[1]] += line
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		b.WriteString(name + chains[name])
	}
	return b.String()
}

// Table prints a table of nft in an order that does not depend on history: each
// thing on lines of its own by name, the rules of a chain as they stand, the
// elements of a set sorted. Handles and counters are left out. A table that is
// not there prints nothing.
func Table(node *kerneltest.Namespace, family, name string) string {
	out, err := node.Try("nft", "-j", "list", "table", family, name)
	if err != nil {
		return ""
	}
	var listing struct {
		Things []map[string]map[string]any `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(out), &listing); err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	things := map[string]string{}
	for _, thing := range listing.Things {
		for kind, t := range thing {
			if kind == "metainfo" {
				continue
			}
			delete(t, "handle")
			owner := fmt.Sprint(kind, " ", t["name"])
			if kind == "rule" {
				owner = fmt.Sprint("chain ", t["chain"])
			}
			things[owner] += textOf(t) + "\n"
		}
	}
	var b strings.Builder
	for _, owner := range slices.Sorted(maps.Keys(things)) {
		b.WriteString(owner + ": " + things[owner])
	}
	return b.String()
}

// textOf writes a part of a listing with its lists of elements sorted and without
// the values of counters.
func textOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var fields []string
		for k, field := range v {
			switch {
			case k == "counter":
				fields = append(fields, k)
			case k == "elem":
				fields = append(fields, k+"="+sortedText(field))
			default:
				fields = append(fields, k+"="+textOf(field))
			}
		}
		slices.Sort(fields)
		return "{" + strings.Join(fields, " ") + "}"
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, textOf(item))
		}
		return "[" + strings.Join(items, " ") + "]"
	}
	return fmt.Sprint(v)
}

func sortedText(v any) string {
	list, ok := v.([]any)
	if !ok {
		return textOf(v)
	}
	var items []string
	for _, item := range list {
		items = append(items, textOf(item))
	}
	slices.Sort(items)
	return "[" + strings.Join(items, " ") + "]"
}
