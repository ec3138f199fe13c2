//go:build suites

package main

// What `make conformance` builds beside this program, kept in go.mod by these
// imports: the end-to-end tests, their pods' program and their runner.
import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
	_ "k8s.io/kubernetes/test/images/regression-issue-74839"
)
