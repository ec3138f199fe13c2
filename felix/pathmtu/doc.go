// Package pathmtu finds out whether packets of the size that the kernel believes in
// reach the other nodes. felix/agent runs it, and reports what it finds; nothing is
// changed by it.
//
// A router whose link is narrower has to say so. Where it does not, or a firewall
// swallows what it says, small packets pass and large ones vanish: connections are
// made and then stand still. So a node sends to each other node, a few at a time, an
// ICMP echo request as large as its own interface allows, not to be fragmented, and a
// small one beside it. Only where the small one is answered and the large one is not,
// again and again, something is wrong; then the largest size that passes is looked for.
// A node that answers neither is not judged.
//
// Nodes that are reached through a tunnel of VXLAN or IPIP are also tried through it.
// There go datagrams too that the kernel leaves to devices to finish, beside one that it
// finishes itself: some devices spoil what is inside of a tunnel. Of the segments of the
// large one half have to arrive. Whom these reach through VXLAN gets two trains of TCP,
// one cut by the kernel and one by the device, and where most of the second is lost, or it
// takes very much longer, again and again, the device is not to cut. Through IPIP no trains
// can be sent; there the few segments of the datagram are all that is measured.
//
//	ring of nodes ─▶ trial of one (pure) ◀─▶ sockets ─▶ book of findings (pure) ─▶ Summary
//
// Each interval costs a node the same, however many there are: a few trials, of which
// one that finds nothing is two packets. Trains go to one peer in an interval at most:
// once to a new one, once in an hour to others, and in every turn to one with which there
// was trouble less than three times in a row. Both are 116 kB and 96 answers.
package pathmtu
