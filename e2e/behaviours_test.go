package e2e

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	aTest   = regexp.MustCompile(`(?m)^func (Test\w+)|\{"(Item\d+[^"]*)"`)
	aRow    = regexp.MustCompile(`^//\t(D?\d+) +\S.*?  +(\S.*)$`)
	further = regexp.MustCompile(`^//\t {20,}(\S.*)$`)
)

// TestEveryBehaviourOfADataPlaneHasTests reads the lists that the data planes have of
// what they must do and of which tests hold them to it: none may be missing there,
// and every test that is named must be one.
func TestEveryBehaviourOfADataPlaneHasTests(t *testing.T) {
	tests := testsBelow(t, "../felix")
	for _, list := range []string{"../felix/iptables/behaviours_test.go", "../felix/nft/behaviours_test.go"} {
		held := behaviours(t, list)
		var wanted []string
		for n := 1; n <= 13; n++ {
			wanted = append(wanted, "D"+strconv.Itoa(n))
		}
		for n := 80; n <= 88; n++ {
			wanted = append(wanted, strconv.Itoa(n))
		}
		for _, behaviour := range wanted {
			if len(held[behaviour]) == 0 {
				t.Errorf("%s: no test for %s", list, behaviour)
			}
			for _, name := range held[behaviour] {
				if !known(tests, name) {
					t.Errorf("%s, %s: there is no test %s", list, behaviour, name)
				}
			}
		}
	}
}

// behaviours returns the names of tests by behaviour.
func behaviours(t *testing.T, list string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	held, last := map[string][]string{}, ""
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if row := aRow.FindStringSubmatch(lines.Text()); row != nil {
			last = row[1]
			held[last] = append(held[last], strings.Fields(row[2])...)
		} else if more := further.FindStringSubmatch(lines.Text()); more != nil {
			held[last] = append(held[last], strings.Fields(more[1])...)
		}
	}
	return held
}

// testsBelow returns the names of all tests, and of those that data planes share.
func testsBelow(t *testing.T, dir string) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		shared := strings.Contains(path, "/dataplanetest/") && strings.HasSuffix(path, ".go")
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && !shared {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range aTest.FindAllStringSubmatch(string(text), -1) {
			tests[name[1]+name[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// known reports whether there is a test of a name, or of one that begins so.
func known(tests map[string]bool, name string) bool {
	start, open := strings.CutSuffix(name, "…")
	if !open {
		return tests[name]
	}
	for test := range tests {
		if rest, ok := strings.CutPrefix(test, start); ok && (rest == "" || rest[0] < '0' || rest[0] > '9') {
			return true
		}
	}
	return false
}
