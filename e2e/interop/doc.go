// Package interop holds the speaker of Korat against the BGP daemons that are met
// in racks: FRR, BIRD and GoBGP's own, each as top-of-rack switch (another AS) and
// as route reflector (the same AS). What each pair can do together is a cell of a
// table, docs/bgp-interop.md, which the test writes with -update.
//
// There are only tests here. `make interop` runs all cells; without -all those that
// are fast run against FRR and BIRD.
//
//	n1  n2  n3   r1  r2        nodes with Korat's speaker, routers with a daemon
//	└───┴───┴─┬──┴───┘
//	        bridge             192.0.2.0/24, 2001:db8::/64; a port is taken off it
//	                           to let somebody die with all links up
package interop
