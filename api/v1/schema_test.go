package v1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// crdDir holds the CRDs that the chart installs; the tests judge those very
// files.
const crdDir = "../../charts/korat/crds"

// An object is a manifest as the API server sees it.
type object = map[string]any

// A kindSchema does with objects of one kind what the API server does between
// decoding and storing, by the API server's own code and in its order.
type kindSchema struct {
	structural *schema.Structural
	openapi    validation.SchemaValidator
	rules      *cel.Validator
}

// create admits an object as POST does: defaults go into it, its mistakes are
// returned. Unknown fields are mistakes, as they are for kubectl.
func (k kindSchema) create(ctx context.Context, o object) []error {
	return k.admit(ctx, o, nil)
}

// update admits an object as PUT over an old one does.
func (k kindSchema) update(ctx context.Context, o, old object) []error {
	return k.admit(ctx, o, old)
}

func (k kindSchema) admit(ctx context.Context, o, old object) []error {
	var errs []error
	unknown := pruning.PruneWithOptions(o, k.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		errs = append(errs, fmt.Errorf("unknown field %q", path))
	}
	defaulting.Default(o, k.structural)

	found := validation.ValidateCustomResource(nil, o, k.openapi)
	found = append(found, listtype.ValidateListSetsAndMaps(nil, k.structural, o)...)
	if !blocksRules(found) {
		broken, _ := k.rules.Validate(ctx, nil, k.structural, o, anyObject(old), celconfig.RuntimeCELCostBudget)
		found = append(found, broken...)
	}
	for _, err := range found {
		errs = append(errs, err)
	}
	return errs
}

// anyObject keeps a nil object from becoming a non-nil interface.
func anyObject(o object) any {
	if o == nil {
		return nil
	}
	return o
}

// blocksRules says whether an object is so broken that the API server does not
// run the CEL rules on it.
func blocksRules(errs field.ErrorList) bool {
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// loadSchemas reads the CRDs, checks each as the API server does before it
// serves one (among others, that the estimated cost of the CEL rules is
// bounded), and returns their schemas by kind.
func loadSchemas(t testing.TB) map[string]kindSchema {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(crdDir, "korat.dev_*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in %s: %v", crdDir, err)
	}
	kinds := map[string]kindSchema{}
	for _, file := range files {
		crd := loadCRD(t, file)
		// With one version, the conversion to the internal form moves its
		// schema to the top.
		props := crd.Spec.Validation
		structural, err := schema.NewStructural(props.OpenAPIV3Schema)
		if err != nil {
			t.Fatalf("%s: schema: %v", file, err)
		}
		openapi, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
		if err != nil {
			t.Fatalf("%s: validator: %v", file, err)
		}
		kinds[crd.Spec.Names.Kind] = kindSchema{
			structural: structural,
			openapi:    openapi,
			rules:      cel.NewValidator(structural, true, celconfig.PerCallLimit),
		}
	}
	return kinds
}

func loadCRD(t testing.TB, file string) *apiextensions.CustomResourceDefinition {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v1crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &v1crd); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1crd.Spec)
	var crd apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1crd, &crd, nil); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	crd.Status.StoredVersions = []string{"v1"}
	if errs := crdvalidation.ValidateCustomResourceDefinition(t.Context(), &crd); len(errs) > 0 {
		t.Fatalf("%s is no CRD that an API server takes: %v", file, errs.ToAggregate())
	}
	return &crd
}

// loadManifests reads the documents of a YAML file.
func loadManifests(t *testing.T, file string) []object {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var objects []object
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		text, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		// The API server's own decoder: whole numbers become int64.
		var o object
		if err := json.Unmarshal(text, &o); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects = append(objects, o)
	}
	return objects
}

// forEachManifest runs a subtest for each file that matches the pattern.
func forEachManifest(t *testing.T, pattern string, run func(t *testing.T, file string)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests match %s: %v", pattern, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name[:len(name)-len(".yaml")], func(t *testing.T) { run(t, file) })
	}
}

// kindOf finds the schema of an object.
func kindOf(t *testing.T, kinds map[string]kindSchema, o object) kindSchema {
	t.Helper()
	if o["apiVersion"] != GroupVersion.String() {
		t.Fatalf("apiVersion is %v, want %s", o["apiVersion"], GroupVersion)
	}
	k, ok := kinds[fmt.Sprint(o["kind"])]
	if !ok {
		t.Fatalf("no CRD for kind %v", o["kind"])
	}
	return k
}

// noMistakes fails the test if there are any.
func noMistakes(t *testing.T, errs []error) {
	t.Helper()
	if len(errs) > 0 {
		t.Errorf("refused: %v", errors.Join(errs...))
	}
}
