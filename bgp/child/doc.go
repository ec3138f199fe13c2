// Package child makes the BGP speaker a process of its own, `korat speaker`: a
// crash of protocol code takes neither policy nor addresses with it, and a
// restart of the agent resets no session.
//
//	agent: Client ── unix socket ── Server :speaker process
//	          │                        └─ a reconcile.Speaker (bgp/gobgp)
//	       Keeper: starts the process when none answers
//
// The speaker outlives the agent. It writes what it was told to a file in the run
// directory, so that one that crashed goes on at once, agent or not, and tells its
// neighbours that it restarted (RFC 4724). A node's reboot empties the run
// directory: then nothing is kept. A speaker whose socket was removed ends.
//
// The process has no privilege but to bind port 179, and its directory admits
// root and itself alone: who can write to the socket can announce any prefix.
package child

import "path/filepath"

// The directory of the speaker, inside the agent's run directory, and what lies
// in it.
const (
	dirName    = "speaker"
	socketName = "speaker.sock"
	stateName  = "state"
	lockName   = "lock"
)

// uid is what the process runs as when the agent starts it: nobody's.
const uid = 65532

func dirOf(runDir string) string { return filepath.Join(runDir, dirName) }

// Socket is where the speaker of an agent with that run directory listens.
func Socket(runDir string) string { return filepath.Join(dirOf(runDir), socketName) }
