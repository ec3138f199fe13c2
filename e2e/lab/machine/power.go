package machine

import (
	"errors"
	"os"
	"path/filepath"
)

// PowerOff ends the machine at once, with all its processes, control groups, network
// namespace and links, and /run. Its disk stays, which is what it has of its own below
// OwnDirs: a machine that Create makes of the same directory finds it.
func (m *Machine) PowerOff() error {
	// The slash: another machine's name may begin with this one's.
	err := destroy([]string{m.Netns}, m.Netns+"/")
	return errors.Join(err, os.RemoveAll(filepath.Join(m.Dir, "run")))
}

// Erase empties the disk of a machine that is off.
func (m *Machine) Erase() error {
	return errors.Join(os.RemoveAll(filepath.Join(m.Dir, "fs")), os.RemoveAll(filepath.Join(m.Dir, "korat")))
}
