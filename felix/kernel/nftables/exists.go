package nftables

import "fmt"

// Exists reports whether there is a table of this family and name in the network
// namespace of the calling thread.
func Exists(family Family, name string) (bool, error) {
	t, err := Open(family, name)
	if err != nil {
		return false, err
	}
	defer t.Close()
	if err := t.readTable(); err != nil {
		return false, fmt.Errorf("ask for table %s: %w", name, err)
	}
	return t.there, nil
}
