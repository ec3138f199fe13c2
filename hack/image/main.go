// Command image packs directories into a container image, without a registry or
// a daemon. The image gets a bill of materials as /usr/share/sbom/bom.cdx.json,
// which is also laid beside the archive, one for each platform.
//
//	image -name ghcr.io/koratnet/korat:v1 -out korat.tar -entrypoint /korat amd64=ROOT arm64=ROOT
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/koratnet/korat/hack/image/oci"
)

const bomPath = "usr/share/sbom/bom.cdx.json"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	name := f.String("name", "", "reference of the image (required)")
	also := f.String("also", "", "more references of the same image, separated by spaces")
	out := f.String("out", "", "archive to write (required)")
	version := f.String("version", "unknown", "version of what is in it")
	source := f.String("source", "", "URL of what it was built from")
	user := f.String("user", "", "user and group that a container runs as, such as 65532:65532; empty: root")
	entrypoint := f.String("entrypoint", "", "program, with its first arguments, separated by spaces")
	command := f.String("command", "", "further arguments unless others are given, separated by spaces")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *name == "" || *out == "" || f.NArg() == 0 {
		return errors.New("want -name, -out and ARCHITECTURE=DIRECTORY")
	}
	image := oci.Image{
		Name: *name, Also: strings.Fields(*also), User: *user,
		Entrypoint: strings.Fields(*entrypoint), Command: strings.Fields(*command),
		Labels: map[string]string{"org.opencontainers.image.version": *version},
	}
	if *source != "" {
		image.Labels["org.opencontainers.image.source"] = *source
	}
	for _, a := range f.Args() {
		arch, root, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("platform %q: want ARCHITECTURE=DIRECTORY", a)
		}
		image.Platforms = append(image.Platforms, oci.Platform{Architecture: arch, Root: root})
		bom, err := oci.Materials(root, *name, *version)
		if err != nil {
			return err
		}
		beside := strings.TrimSuffix(*out, filepath.Ext(*out)) + "-" + arch + ".cdx.json"
		if err := errors.Join(bom.Save(filepath.Join(root, bomPath)), bom.Save(beside)); err != nil {
			return err
		}
	}
	return write(*out, image)
}

// write puts the archive at path in one step.
func write(path string, image oci.Image) error {
	file, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	digest, err := oci.Write(file, image)
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	fmt.Println(image.Name, digest)
	return os.Rename(file.Name(), path)
}
