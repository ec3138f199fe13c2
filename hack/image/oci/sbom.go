package oci

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// BOM is a bill of materials in CycloneDX 1.5: what an image is made of.
type BOM struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Metadata    BOMMetadata `json:"metadata"`
	Components  []Component `json:"components"`
}

// BOMMetadata says what the bill is of.
type BOMMetadata struct {
	Component Component `json:"component"`
}

// Component is a program, a Go module or a Debian package.
type Component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []Hash `json:"hashes,omitempty"`
}

// Hash is one of a component's file.
type Hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// packageList is where an image has its Debian packages, each a line of name,
// version and architecture.
const packageList = "usr/share/sbom/packages"

// Materials reads what is below root: the modules that Go programs were built of,
// as they say themselves, and the packages in usr/share/sbom/packages.
func Materials(root, name, version string) (BOM, error) {
	b := BOM{
		Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		Metadata: BOMMetadata{Component: Component{Type: "container", Name: name, Version: version}},
	}
	seen := map[string]bool{}
	add := func(c Component) {
		if key := c.Type + c.Name + c.PURL; !seen[key] {
			seen[key] = true
			b.Components = append(b.Components, c)
		}
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil // no Go program
		}
		sum, err := digest(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		add(Component{Type: "application", Name: "/" + rel, Version: version, Hashes: []Hash{{"SHA-256", sum}}})
		add(Component{Type: "library", Name: "stdlib", Version: info.GoVersion, PURL: "pkg:golang/stdlib@" + strings.TrimPrefix(info.GoVersion, "go")})
		for _, m := range info.Deps {
			if m.Replace != nil && !strings.HasPrefix(m.Replace.Path, ".") { // else it is the same one with a patch of ours
				m = m.Replace
			}
			add(Component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version})
		}
		return nil
	})
	if err != nil {
		return b, fmt.Errorf("materials of %s: %w", name, err)
	}
	packages, err := os.ReadFile(filepath.Join(root, packageList))
	if err != nil && !os.IsNotExist(err) {
		return b, fmt.Errorf("materials of %s: %w", name, err)
	}
	for line := range strings.Lines(string(packages)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return b, fmt.Errorf("materials of %s: package %q: want name, version and architecture", name, line)
		}
		add(Component{Type: "library", Name: f[0], Version: f[1], PURL: fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", f[0], f[1], f[2])})
	}
	slices.SortStableFunc(b.Components, func(x, y Component) int {
		return strings.Compare(x.Type+" "+x.Name+" "+x.Version, y.Type+" "+y.Name+" "+y.Version)
	})
	return b, nil
}

// Save writes the bill to a file.
func (b BOM) Save(path string) error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
