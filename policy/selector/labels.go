package selector

import (
	"cmp"
	"slices"
	"unique"
)

// KV is one label: a key and its value, as Kubernetes means them.
type KV struct {
	Key, Value string
}

// Pair is an interned label. Two equal labels are the same Pair, so a cluster
// of 250,000 pods with a few thousand distinct labels holds each text once, and
// indexes compare one word.
type Pair = unique.Handle[KV]

// MakePair interns the label key=value.
func MakePair(key, value string) Pair { return unique.Make(KV{key, value}) }

// Labels are the labels of one thing, sorted by key, each key once. Labels are
// shared and never changed after MakeLabels. The nil value is "no labels".
type Labels []Pair

// MakeLabels interns a Kubernetes label map.
func MakeLabels(m map[string]string) Labels {
	if len(m) == 0 {
		return nil
	}
	l := make(Labels, 0, len(m))
	for k, v := range m {
		l = append(l, MakePair(k, v))
	}
	slices.SortFunc(l, func(a, b Pair) int { return cmp.Compare(a.Value().Key, b.Value().Key) })
	return l
}

// Merge returns the labels of both, which have no key in common.
func Merge(a, b Labels) Labels {
	all := make(Labels, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Value().Key < b[0].Value().Key {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// Get returns the value of key and whether the label exists. Label lists are
// short (a handful), so it walks.
func (l Labels) Get(key string) (string, bool) {
	for _, p := range l {
		if kv := p.Value(); kv.Key == key {
			return kv.Value, true
		}
	}
	return "", false
}

// Equal reports whether both hold the same labels.
func (l Labels) Equal(m Labels) bool { return slices.Equal(l, m) }
