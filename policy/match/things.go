package match

import "github.com/koratnet/korat/policy/selector"

// Things is Rows for an owner who calls things by a key and looks them up by it.
// Things are added by Set alone.
type Things[K comparable] struct {
	*Rows[K]
	at map[K]Row
}

// NewThings returns an empty index.
func NewThings[K comparable]() *Things[K] {
	return &Things[K]{Rows: NewRows[K](), at: map[K]Row{}}
}

// Set adds the thing k, or moves and relabels it.
func (x *Things[K]) Set(k K, namespace string, labels selector.Labels) {
	if r, ok := x.at[k]; ok {
		x.at[k] = x.Rows.Change(r, k, namespace, labels)
		return
	}
	x.at[k] = x.Rows.Add(k, namespace, labels)
}

// Remove forgets the thing k; it need not exist.
func (x *Things[K]) Remove(k K) {
	if r, ok := x.at[k]; ok {
		delete(x.at, k)
		x.Rows.Remove(r)
	}
}

// Get returns the namespace and the labels of the thing k.
func (x *Things[K]) Get(k K) (Namespace, selector.Labels, bool) {
	r, ok := x.at[k]
	if !ok {
		return Namespace{}, nil, false
	}
	ns, labels := x.Rows.Get(r)
	return ns, labels, true
}
