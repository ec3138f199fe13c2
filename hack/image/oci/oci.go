// Package oci writes container images into archives of the OCI image layout, as
// `ctr images import`, skopeo and others read them. It needs no registry and no
// daemon, and asks neither the clock nor the machine: the same files give the same
// digests. hack/image is its command.
package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Image is one image, for one or more platforms.
type Image struct {
	// Name is its full reference, such as "ghcr.io/koratnet/korat:v1.0.0". Also are
	// more of them, for the same image.
	Name string
	Also []string
	// Labels are those of its configuration, and annotations of its manifests.
	Labels map[string]string
	// Entrypoint and Command are what a container runs; User is empty for root.
	Entrypoint, Command []string
	User                string
	Platforms           []Platform
}

// Platform is what an image holds for one kind of machine.
type Platform struct {
	// Architecture is Go's name of it, such as "amd64".
	Architecture string
	// Root is a directory with all files of the image. Owners and times of files
	// are not taken over: everything is root's, from Epoch.
	Root string
}

// Epoch is the time of everything in an image.
var Epoch = time.Unix(0, 0).UTC()

// The media types of the image specification.
const (
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type config struct {
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Created      time.Time `json:"created"`
	Config       struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env"`
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Cmd        []string          `json:"Cmd,omitempty"`
		WorkingDir string            `json:"WorkingDir"`
		Labels     map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Write writes the archive and returns the digest of the image.
func Write(w io.Writer, i Image) (string, error) {
	a := archive{tw: tar.NewWriter(w)}
	digest, err := a.image(i)
	if err == nil {
		err = a.tw.Close()
	}
	if err != nil {
		return "", fmt.Errorf("image %s: %w", i.Name, err)
	}
	return digest, nil
}

type archive struct {
	tw   *tar.Writer
	done []string // digests of the blobs written: platforms may share one
}

func (a *archive) image(i Image) (string, error) {
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return "", err
	}
	all := manifest{SchemaVersion: 2, MediaType: indexType, Annotations: i.Labels}
	for _, p := range i.Platforms {
		d, err := a.platform(i, p)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.Architecture, err)
		}
		all.Manifests = append(all.Manifests, d)
	}
	d, err := a.json(indexType, all)
	if err != nil {
		return "", err
	}
	digest := d.Digest
	top := manifest{SchemaVersion: 2, MediaType: indexType}
	for _, name := range append([]string{i.Name}, i.Also...) {
		_, tag, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
		d.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
		top.Manifests = append(top.Manifests, d)
	}
	b, err := json.Marshal(top)
	if err != nil {
		return "", err
	}
	return digest, a.file("index.json", b)
}

func (a *archive) platform(i Image, p Platform) (descriptor, error) {
	layer, err := a.layer(p.Root)
	if err != nil {
		return descriptor{}, err
	}
	c := config{Architecture: p.Architecture, OS: "linux", Created: Epoch}
	c.Config.User = i.User
	c.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	c.Config.Entrypoint, c.Config.Cmd = i.Entrypoint, i.Command
	c.Config.WorkingDir = "/"
	c.Config.Labels = i.Labels
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{layer.Digest}
	cd, err := a.json(configType, c)
	if err != nil {
		return descriptor{}, err
	}
	d, err := a.json(manifestType, manifest{
		SchemaVersion: 2, MediaType: manifestType, Config: &cd,
		Layers: []descriptor{layer}, Annotations: i.Labels,
	})
	d.Platform = &platform{Architecture: p.Architecture, OS: "linux"}
	return d, err
}

// layer packs a directory. The layer is not compressed, so that its digest does
// not depend on the version of a compressor; archives may be, as a whole.
func (a *archive) layer(root string) (descriptor, error) {
	f, err := os.CreateTemp("", "layer")
	if err != nil {
		return descriptor{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum := sha256.New()
	if err := pack(io.MultiWriter(f, sum), root); err != nil {
		return descriptor{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return descriptor{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: layerType, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: size}
	return d, a.blob(d, f)
}

func (a *archive) json(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	sum := sha256.Sum256(b)
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b))}
	return d, a.blob(d, bytes.NewReader(b))
}

func (a *archive) blob(d descriptor, r io.Reader) error {
	if slices.Contains(a.done, d.Digest) {
		return nil
	}
	a.done = append(a.done, d.Digest)
	name := "blobs/" + strings.Replace(d.Digest, ":", "/", 1)
	if err := a.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: d.Size, ModTime: Epoch, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(a.tw, r)
	return err
}

func (a *archive) file(name string, content []byte) error {
	if err := a.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: Epoch}); err != nil {
		return err
	}
	_, err := a.tw.Write(content)
	return err
}

// pack writes the files below root, in the order of their names.
func pack(w io.Writer, root string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return packFile(tw, root, path, d)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packFile(tw *tar.Writer, root, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, ModTime: Epoch, Format: tar.FormatUSTAR}
	mode := info.Mode()
	switch {
	case mode.IsDir():
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		if mode&fs.ModeSticky != 0 {
			h.Mode = 0o1777
		}
		return tw.WriteHeader(h)
	case mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if h.Linkname, err = os.Readlink(path); err != nil {
			return err
		}
		return tw.WriteHeader(h)
	case !mode.IsRegular():
		return fmt.Errorf("%s: neither a file, a directory nor a link", path)
	}
	// What the umask of whoever made the directory took away does not count.
	if h.Mode = 0o644; mode&0o111 != 0 {
		h.Mode = 0o755
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}
