package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Record is all that a runner must know to adopt a pod.
type Record struct {
	Pod *corev1.Pod
	// ID is the sandbox's; empty before there is one.
	ID string
	// Ready is set once the CNI plugin has answered.
	Ready bool
	// Addresses are the pod's, IPv4 first.
	Addresses []netip.Addr
	Started   time.Time
	Processes map[string]process
}

// Records reads the records of all pods of a node whose files are below root.
func Records(root string) ([]Record, error) {
	files, err := filepath.Glob(filepath.Join(root, recordFile("*")))
	if err != nil {
		return nil, err
	}
	var out []Record
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // the pod ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("record %s: %w", f, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func recordFile(uid string) string { return filepath.Join(recordsDir, uid+".json") }

// save writes the record whole or not at all.
func (r *Record) save() error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(recordsDir, 0o755); err != nil {
		return err
	}
	file := recordFile(string(r.Pod.UID))
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
