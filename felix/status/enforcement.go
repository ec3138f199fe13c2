package status

// Enforcement is which data planes enforce policy on the node.
type Enforcement struct {
	InForce string // the plane that packets surely pass; empty before the first
	Wanted  string // the plane that is asked for
	Why     string // it is the wanted one
	// Missing is why the wanted one is not yet in force, Leftover why another one
	// is not removed yet; nil otherwise.
	Missing, Leftover error
}

// SetEnforcement says which data planes enforce policy now.
func (b *Board) SetEnforcement(e Enforcement) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.enforcement = e
}

// Enforcement returns what SetEnforcement said last.
func (b *Board) Enforcement() Enforcement {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.enforcement
}

// Forget says that an expected reconciler does not run any more.
func (b *Board) Forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.reconcilers, name)
	b.metrics.forget(name)
}
