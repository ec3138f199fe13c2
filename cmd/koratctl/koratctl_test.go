package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koratnet/korat/hack/golden"
)

// commands are command lines by the name of the golden file that holds what
// they say: testdata/golden/*.txt. docs/koratctl.md shows some of them.
var commands = map[string]string{
	"explain-allowed":        "policy explain shop/api shop/db:postgres -f shop.yaml -f policies.yaml",
	"explain-denied":         "policy explain shop/web shop/db:5432 -f shop.yaml -f policies.yaml --why",
	"explain-json":           "policy explain shop/web shop/db:5432/TCP -f shop.yaml -f policies.yaml -o json",
	"explain-staged":         "policy explain shop/api shop/web:80 -f shop.yaml -f policies.yaml",
	"explain-outside":        "policy explain shop/web [2001:db8::7]:443/UDP -f shop.yaml -f policies.yaml",
	"explain-from-node":      "policy explain node-a shop/api:/ICMP -f shop.yaml -f policies.yaml",
	"explain-host-network":   "policy explain shop/web ops/agent:9100 -f shop.yaml -f policies.yaml",
	"explain-family":         "policy explain shop/web shop/api:80 --family 6 -f shop.yaml -f policies.yaml",
	"explain-host":           "policy explain 198.51.100.7 node-a:8443 -f shop.yaml -f hosts.yaml --why",
	"explain-host-failsafe":  "policy explain 198.51.100.7 node-a:22 -f shop.yaml -f hosts.yaml",
	"explain-protocol":       "policy explain shop/web shop/api:/47 -f shop.yaml",
	"explain-service":        "policy explain shop/web 10.96.0.7:5432 -f shop.yaml",
	"explain-no-pod":         "policy explain shop/web default/db:5432 -f shop.yaml",
	"explain-no-such-pod":    "policy explain shop/web shop/sql:5432 -f shop.yaml",
	"explain-one-argument":   "policy explain shop/web",
	"no-such-command":        "policy explian shop/web shop/db:5432",
	"explain-no-node":        "policy explain web shop/db:5432 -f shop.yaml",
	"explain-no-port":        "policy explain shop/web shop/db -f shop.yaml",
	"explain-no-port-name":   "policy explain shop/web shop/db:http -f shop.yaml",
	"explain-no-brackets":    "policy explain shop/web 2001:db8::7:443 -f shop.yaml",
	"explain-no-protocol":    "policy explain shop/web shop/db:5432/TPC -f shop.yaml",
	"explain-no-family":      "policy explain ops/monitor shop/api:80 --family 6 -f shop.yaml",
	"explain-no-credentials": "policy explain shop/web shop/db:5432 --kubeconfig none.yaml",
	"explain-no-file":        "policy explain shop/web shop/db:5432 -f none.yaml",
	"explain-problems":       "policy explain shop/web shop/db:5432 -f shop.yaml -f bad.yaml",
	"what-if-denied":         "policy what-if --base shop.yaml -f policies.yaml",
	"what-if-deleted":        "policy what-if --base shop.yaml --base policies.yaml --delete knp/shop/deny",
	"what-if-json":           "policy what-if --base shop.yaml --base policies.yaml -f other.yaml -o json",
	"what-if-same":           "policy what-if --base shop.yaml --base policies.yaml -f policies.yaml",
	"what-if-nothing":        "policy what-if --base shop.yaml",
	"what-if-no-object":      "policy what-if --base policies.yaml --delete networkpolicy/shop/dney",
	"what-if-no-kind":        "policy what-if --base policies.yaml --delete ingress/shop/web",
	"what-if-many":           "policy what-if --base policies.yaml --base other.yaml --delete networkpolicy/shop/db",
	"convert-calico":         "policy convert -f calico.yaml",
	"convert-nothing":        "policy convert",
	"lint-good":              "policy lint -f shop.yaml -f policies.yaml",
	"lint-bad":               "policy lint -f shop.yaml -f bad.yaml",
	"lint-json":              "policy lint -f policies.yaml -o json",
	"lint-no-yaml":           "policy lint -f broken.yaml",
	"lint-nothing":           "policy lint",
	"lint-output":            "policy lint -f shop.yaml -o yaml",
}

// koratctl runs a command line in testdata and returns all that it says.
func koratctl(t *testing.T, line string) string {
	t.Helper()
	t.Chdir("testdata")
	t.Setenv("KUBECONFIG", "none.yaml")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), strings.Fields(line), strings.NewReader(""), &stdout, &stderr)
	text := "$ koratctl " + line + "\n" + stdout.String()
	if stderr.Len() > 0 {
		text += "--- standard error\n" + stderr.String()
	}
	return text + fmt.Sprintf("--- exit status %d\n", code)
}

func TestCommands(t *testing.T) {
	for name, line := range commands {
		t.Run(name, func(t *testing.T) {
			got := koratctl(t, line)
			golden.Compare(t, filepath.Join("golden", name+".txt"), got)
		})
	}
}

// TestTheManualShowsWhatIsSaid compares the examples of docs/koratctl.md, blocks
// that begin with a command line about policy, with the golden files. Other
// commands ask a cluster.
func TestTheManualShowsWhatIsSaid(t *testing.T) {
	manual, err := os.ReadFile("../../docs/koratctl.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for name := range commands {
		text, err := os.ReadFile(filepath.Join("testdata", "golden", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		line, rest, _ := strings.Cut(string(text), "\n")
		said[line] = rest
	}
	shown := 0
	for i, block := range strings.Split(string(manual), "```") {
		line, rest, _ := strings.Cut(strings.TrimPrefix(block, "\n"), "\n")
		if i%2 == 0 || !strings.HasPrefix(line, "$ koratctl policy") {
			continue
		}
		shown++
		for _, part := range strings.Split(rest, "...\n") {
			if !strings.Contains(said[line], part) {
				t.Errorf("%s\nsays %q\nnot   %q", line, said[line], part)
			}
		}
	}
	if shown < 4 {
		t.Errorf("%d examples are shown", shown)
	}
}
