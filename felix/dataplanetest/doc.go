// Package dataplanetest judges data planes: whatever keeps policy in the kernel
// has to do to real packets what policy/eval says. A backend's own tests call it:
//
//	func TestKernelAgreesWithEval(t *testing.T) { dataplanetest.Differential(t, backend) }
//
//	Differential  random clusters of API objects, through the engine
//	Programs      random compiled policy, past what objects say
//	Items         details that are easily got wrong, by their numbers
//	Attacks       what a hostile pod or a stranger would try
//	KillAnywhere  SIGKILL at random moments while everything changes
//	Switch        one backend in the place of another
//
// Flags -clusters and -kills say how many of each, -seed replays one cluster.
//
// A world is a node with three pods and two uplinks, each with an outside behind
// it that plays other nodes, their pods and strangers:
//
//	a ─┐            ┌─ eth0 ── out0, node0, rem0
//	b ─┤── host ────┤
//	c ─┘            └─ eth1 ── out1, node1, rem1
//
// and service addresses and node ports that are translated as kube-proxy does.
// Clusters are drawn as the API would hold them, go through policy/convert and
// felix/calc into the backend, and are asked of policy/eval from the same
// objects. The node and its namespaces stay while clusters come and go.
//
// No verdict is waited for: packets are sent on one CPU, where the kernel works
// them off in order, and frames of a wire beside the node tell when it is done
// (see clock). What has not arrived by then was dropped.
package dataplanetest
