package main

import (
	encodingjson "encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/cmd/koratctl/internal/world"
	"github.com/koratnet/korat/policy/convert/calico"
)

func convertCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "convert -f FILE...", Short: "Convert Calico's resources to Korat's",
		Long: `Convert Calico's resources (projectcalico.org/v3) to Korat's. The result goes to
the standard output as YAML. What has no equivalent is told on the standard error,
field by field: a warning where something will be different, a note where not.

Nothing is made more permissive: of rules that cannot be converted, those that
allow are left out, and the others deny.`,
		Example: "  calicoctl get networkpolicy -A -o yaml | koratctl policy convert -f - > korat.yaml\n  koratctl policy convert -f calico/ | koratctl policy lint -f -",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or directory of Calico's resources, - for the standard input; repeatable")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(files) == 0 {
			return errors.New("there is nothing to convert, expected -f with a file or a directory of Calico's resources")
		}
		objects, err := manifest.Read(files, cmd.InOrStdin())
		if err != nil {
			return err
		}
		c := converter{out: cmd.OutOrStdout(), report: cmd.ErrOrStderr(), taken: map[string]bool{}}
		for _, o := range objects {
			if err := c.object(o); err != nil {
				return fmt.Errorf("%s: %s: %w", o.Place, o, err)
			}
		}
		fmt.Fprintf(c.report, "%d objects: %d converted, %d warnings\n", len(objects), len(c.taken), c.warnings)
		return nil
	}
	return cmd
}

// converter writes what it converts, and what it cannot.
type converter struct {
	out, report io.Writer
	taken       map[string]bool // identities of the results
	warnings    int
}

func (c *converter) object(o manifest.Object) error {
	if o.APIVersion != calico.Group {
		c.foreign(o)
		return nil
	}
	var in calico.Object
	if err := json.UnmarshalCaseSensitivePreserveInts(o.JSON, &in); err != nil {
		return err
	}
	in["apiVersion"], in["kind"] = o.APIVersion, o.Kind // those of its list
	result, losses := calico.Convert(in)
	for _, l := range losses {
		severity := world.Warning
		if l.Harmless {
			severity = world.Note
		}
		c.tell(world.Problem{Severity: severity, Place: o.Place, Object: o.String(), Field: l.Field, Value: l.Value, Effect: l.Words})
	}
	if result == nil {
		return nil
	}
	return c.write(o, result)
}

// write writes a result, after looking at it as lint does.
func (c *converter) write(from manifest.Object, result calico.Object) error {
	made, err := c.named(from, result)
	if err != nil {
		return err
	}
	for _, p := range world.Build([]manifest.Object{made}).Problems {
		if p.Severity == world.Error {
			p.Effect += "; this is about the result, mend it before it is applied"
			c.tell(p)
		}
	}
	text, err := yaml.JSONToYAML(made.JSON)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "---\n# %s: %s\n%s", from.Place, from, text)
	return err
}

// named gives a result another name where it already is that of another one: a
// staged policy may have the name of one that is enforced, which here is of the
// same kind.
func (c *converter) named(from manifest.Object, result calico.Object) (manifest.Object, error) {
	for {
		raw, err := encodingjson.Marshal(result)
		if err != nil {
			return manifest.Object{}, err
		}
		made, err := manifest.Decode(from.Place, raw)
		if err != nil {
			return manifest.Object{}, err
		}
		if id := world.ID(made[0]); !c.taken[id] {
			c.taken[id] = true
			return made[0], nil
		}
		name := made[0].Name + "-staged"
		result["metadata"].(calico.Object)["name"] = name
		c.tell(world.Problem{
			Severity: world.Note, Place: from.Place, Object: from.String(), Field: "metadata.name", Value: made[0].Name,
			Effect: "another object has this name, so it is named " + name + "; it stands beside the other and does not replace it",
		})
	}
}

// foreign tells of an object that is not Calico's, or not of its API.
func (c *converter) foreign(o manifest.Object) {
	p := world.Problem{Severity: world.Note, Place: o.Place, Object: o.String(), Effect: o.APIVersion + " is not Calico's: it stays as it is, and is not written"}
	if o.Group() == "crd.projectcalico.org" || o.Group() == "projectcalico.org" {
		p.Severity, p.Expected, p.Effect = world.Warning, "apiVersion "+calico.Group+", as calicoctl get -o yaml writes it", "not converted"
	}
	c.tell(p)
}

func (c *converter) tell(p world.Problem) {
	if p.Severity != world.Note {
		c.warnings++
	}
	fmt.Fprintf(c.report, "%s: %s\n", p.Severity, p)
}
