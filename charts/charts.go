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

// Manifest is the chart rendered with its default values for kube-system: service
// accounts with the rules of RBAC, the agents and the controllers.
//
//go:embed korat.yaml
var Manifest []byte

// Image is the name of Korat's image, without a tag.
const Image = "ghcr.io/koratnet/korat"
