package world

import (
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
)

// Overlay returns base as it is after applying over: objects of the same group,
// kind and name are replaced.
func Overlay(base, over []manifest.Object) []manifest.Object {
	replaced := map[string]bool{}
	for _, o := range over {
		replaced[ID(Placed(o))] = true
	}
	kept := slices.DeleteFunc(slices.Clone(base), func(o manifest.Object) bool { return replaced[ID(Placed(o))] })
	return append(kept, over...)
}

// Delete returns objects without the one that ref names: KIND/NAMESPACE/NAME, or
// KIND/NAME where there is no namespace. A kind is written as in a manifest, as
// kubectl takes it, or as in a trace.
func Delete(objects []manifest.Object, ref string) ([]manifest.Object, error) {
	kind, name, ok := strings.Cut(ref, "/")
	if !ok || name == "" {
		return nil, fmt.Errorf("--delete is %q, expected KIND/NAMESPACE/NAME, such as networkpolicy/shop/db, or KIND/NAME", ref)
	}
	var found, same []string
	kept := slices.DeleteFunc(slices.Clone(objects), func(o manifest.Object) bool {
		o = Placed(o)
		k := kindOf(o)
		if k == nil || !k.called(kind) {
			return false
		}
		_, its, _ := strings.Cut(o.String(), " ")
		same = append(same, its)
		if its == name {
			found = append(found, k.plural()+"/"+name)
		}
		return its == name
	})
	switch {
	case len(found) == 1:
		return kept, nil
	case len(found) > 1:
		return nil, fmt.Errorf("--delete %s could be one of %s: write it like these", ref, strings.Join(found, " and "))
	case len(same) == 0:
		return nil, fmt.Errorf("--delete %s: there is no object of this kind", ref)
	}
	slices.Sort(same)
	return nil, fmt.Errorf("--delete %s: there is no such object, only %s", ref, strings.Join(same[:min(len(same), 10)], ", "))
}

// called reports whether name means k.
func (k *Kind) called(name string) bool {
	return slices.ContainsFunc([]string{k.Name, k.Resource, k.Short, k.plural()}, func(s string) bool {
		return s != "" && strings.EqualFold(s, name)
	})
}

// plural returns the name by which kubectl knows k and no other kind.
func (k *Kind) plural() string {
	if g := group(k.APIVersion); g != "" {
		return k.Resource + "." + g
	}
	return k.Resource
}
