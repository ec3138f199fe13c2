// Package flow tells which packets were denied on this node, by whom and how
// often. The data planes hand denied packets to a log group of the kernel, with a
// desired.Reason in short; a Recorder reads the group (felix/kernel/nflog), finds
// the words to the reason, counts what is alike, and keeps the last few thousand
// drops for `koratctl drops`, which asks on a socket in the run directory.
//
//	rule in the kernel ── log group ──► Recorder ── flow.sock ──► koratctl drops
//	                                     ▲   └────────────────► /metrics
//	        engine ── desired.Delta ─────┘
//
// Nothing waits for it. It has no effect on packets, costs nothing when none is
// denied, and looks at so few per second that a flood costs little: of the rest
// only the number is known. Memory is bounded by maxDrops, whatever the senders do.
//
// felix/agent makes and runs it. It decides nothing and writes nothing.
//
// Review notes. A label of a metric must not be a name that users choose. A drop
// that a sender can make unlike the others by what it writes into its packets
// pushes another one out: keep the key small.
package flow
