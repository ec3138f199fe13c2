// Package gobgp speaks BGP with GoBGP, in the process, without its gRPC
// listener. It is the only importer of GoBGP; bgp/reconcile uses it through its
// Speaker interface, felix/agent makes and closes it.
//
// What holds:
//   - A neighbour is told exactly the kinds of paths that it asked for. What was
//     learned from one neighbour is never told to another.
//   - A path is in the table before the neighbours that should hear it, so that
//     End-of-RIB follows the first full set (RFC 4724).
//   - A change of one neighbour touches no other session.
//   - Close closes connections without a word where graceful restart was agreed:
//     the neighbours keep our routes.
//   - Nothing is written to the kernel. Learned paths leave by Learned.
//
// When both sides call each other within the same moment GoBGP may go on calling
// while the session is up. A neighbour that does graceful restart takes this for
// a restart and begins the session anew, keeping the routes. Of two nodes of the
// mesh only one calls; a router that never calls (FRR: neighbor X passive, BIRD:
// passive on) rules it out too.
//
// Two things GoBGP keeps per process, not per server: whether several equal paths
// are used, and how paths are compared. All Speakers of a process set them alike.
package gobgp
