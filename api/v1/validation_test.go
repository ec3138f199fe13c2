package v1

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestValidManifestsAreAccepted(t *testing.T) {
	kinds := loadSchemas(t)
	for _, pattern := range []string{"testdata/valid/*.yaml", "../../docs/examples/*.yaml"} {
		forEachManifest(t, pattern, func(t *testing.T, file string) {
			for _, o := range loadManifests(t, file) {
				if o["apiVersion"] == "v1" { // examples have Services beside
					continue
				}
				noMistakes(t, kindOf(t, kinds, o).create(t.Context(), o))
			}
		})
	}
}

// Each file under testdata/invalid has one mistake and begins with a comment
// that holds a part of the message about it.
func TestInvalidManifestsAreRefusedForTheirOneMistake(t *testing.T) {
	kinds := loadSchemas(t)
	forEachManifest(t, "testdata/invalid/*.yaml", func(t *testing.T, file string) {
		o := loadManifests(t, file)[0]
		wantRefusal(t, expectation(t, file), kindOf(t, kinds, o).create(t.Context(), o))
	})
}

// Each file under testdata/update holds an object and what somebody makes of
// it, and begins with a comment that says whether that is allowed.
func TestUpdatesAreJudgedByWhatWasThere(t *testing.T) {
	kinds := loadSchemas(t)
	forEachManifest(t, "testdata/update/*.yaml", func(t *testing.T, file string) {
		objects := loadManifests(t, file)
		old, o := objects[0], objects[1]
		k := kindOf(t, kinds, old)
		noMistakes(t, k.create(t.Context(), old))
		errs := k.update(t.Context(), o, old)
		if want := expectation(t, file); want != "" {
			wantRefusal(t, want, errs)
		} else {
			noMistakes(t, errs)
		}
	})
}

// expectation is what the first line of a manifest promises: the text after
// "# refused: ", or nothing after "# accepted".
func expectation(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line == "# accepted" {
		return ""
	}
	want, ok := strings.CutPrefix(line, "# refused: ")
	if !ok || want == "" {
		t.Fatalf("first line of %s is %q, want # accepted or # refused: MESSAGE", file, line)
	}
	return want
}

// wantRefusal fails the test unless exactly one field is at fault and a
// message about it contains want.
func wantRefusal(t *testing.T, want string, errs []error) {
	t.Helper()
	fields := map[string]bool{}
	found := false
	for _, err := range errs {
		name, _, _ := strings.Cut(err.Error(), ": ")
		fields[name] = true
		found = found || strings.Contains(err.Error(), want)
	}
	if len(fields) != 1 || !found {
		t.Errorf("want one field at fault with the message\n%s\ngot\n%v", want, errors.Join(errs...))
	}
}
