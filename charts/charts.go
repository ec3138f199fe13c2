// Package charts holds the files that install Korat, for programs that apply
// them: the lab, tests and command lines.
package charts

import "embed"

// CRDs are the custom resource definitions, below korat/crds.
//
//go:embed korat/crds/*.yaml
var CRDs embed.FS

// RBAC says what Korat's programs may do; its comments name their users and groups.
//
//go:embed korat/rbac.yaml
var RBAC []byte

// Workloads run Korat's programs as pods. Their image has no tag: whoever applies
// them says which.
//
//go:embed korat/workloads.yaml
var Workloads []byte

// Image is the name of Korat's image, without a tag.
const Image = "ghcr.io/koratnet/korat"
