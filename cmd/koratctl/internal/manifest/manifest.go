// Package manifest reads Kubernetes manifests: YAML or JSON, many documents in
// a file, many files in a directory. It knows no kind; it tells of each object
// where it stands, so that what is wrong with it can be found.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Place is where an object was read.
type Place struct {
	File     string `json:"file,omitempty"`     // as it was named; "-" is the standard input, empty the API server
	Document int    `json:"document,omitempty"` // of the file, from 1; empty ones are not counted
}

// String returns "shop.yaml, document 2", or "the cluster".
func (p Place) String() string {
	if p.File == "" {
		return "the cluster"
	}
	return fmt.Sprintf("%s, document %d", p.File, p.Document)
}

// Object is one object as it stands in a manifest.
type Object struct {
	Place
	APIVersion, Kind string
	Namespace, Name  string
	JSON             []byte // the whole object
}

// String returns "NetworkPolicy shop/web".
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Group returns the API group: empty for that of Pods.
func (o Object) Group() string {
	group, _, ok := strings.Cut(o.APIVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// Read reads all objects of the files at paths, and of the files *.yaml, *.yml
// and *.json in and below those that are directories. "-" reads stdin.
func Read(paths []string, stdin io.Reader) ([]Object, error) {
	var all []Object
	var errs []error
	for _, path := range paths {
		files, err := list(path)
		if err != nil {
			errs = append(errs, err)
		}
		for _, file := range files {
			objects, err := readFile(file, stdin)
			all, errs = append(all, objects...), append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// list returns the files that path stands for.
func list(path string) ([]string, error) {
	if info, err := os.Stat(path); path == "-" || err == nil && !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		ext := filepath.Ext(file)
		if err == nil && !d.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("directory %s has no files *.yaml, *.yml or *.json", path)
	}
	return files, nil
}

func readFile(file string, stdin io.Reader) ([]Object, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	return Parse(file, text)
}

// Parse reads all objects of one text. A document that cannot be read does not
// keep the others from being read.
func Parse(file string, text []byte) ([]Object, error) {
	var all []Object
	var errs []error
	place := Place{File: file}
	for _, doc := range documents(string(text)) {
		raw, err := yaml.YAMLToJSONStrict([]byte(doc))
		if err == nil && string(raw) == "null" {
			continue
		}
		place.Document++
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
			continue
		}
		objects, err := Decode(place, raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
		}
		all = append(all, objects...)
	}
	return all, errors.Join(errs...)
}

// documents cuts a text at the lines that begin with "---".
func documents(text string) []string {
	var docs []string
	var doc strings.Builder
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "---"); ok && strings.Trim(rest, " \t\r\n") == "" || strings.HasPrefix(line, "--- #") {
			docs = append(docs, doc.String())
			doc.Reset()
			continue
		}
		doc.WriteString(line)
	}
	return append(docs, doc.String())
}

// head is what every object has.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// Decode returns the object, or the objects if it is a list of some. Items may
// leave out what the list says of all of them: apiVersion and kind.
func Decode(at Place, raw []byte) ([]Object, error) {
	return decode(at, raw, head{})
}

func decode(at Place, raw []byte, of head) ([]Object, error) {
	var h head
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, fmt.Errorf("this is no Kubernetes object: %w", err)
	}
	if h.APIVersion == "" {
		h.APIVersion = of.APIVersion
	}
	if h.Kind == "" {
		h.Kind = of.Kind
	}
	kind, isList := strings.CutSuffix(h.Kind, "List")
	switch {
	case h.Kind == "" || h.APIVersion == "":
		return nil, errors.New("this is no Kubernetes object: it has no apiVersion or no kind")
	case isList && h.Metadata.Name == "":
		h.Kind = kind
		var all []Object
		for i, item := range h.Items {
			objects, err := decode(at, item, h)
			if err != nil {
				return all, fmt.Errorf("items[%d]: %w", i, err)
			}
			all = append(all, objects...)
		}
		return all, nil
	case h.Metadata.Name == "":
		return nil, fmt.Errorf("this %s has no metadata.name", h.Kind)
	}
	return []Object{{
		Place: at, APIVersion: h.APIVersion, Kind: h.Kind,
		Namespace: h.Metadata.Namespace, Name: h.Metadata.Name, JSON: raw,
	}}, nil
}
