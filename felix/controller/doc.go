// Package controller holds the cluster-wide loops: what no node can do alone.
// `korat controller` runs it, and of several replicas one leads.
//
//	IPPool ──────┐          ┌──▶ IPPool status      pools.go
//	Block ───────┤          ├──▶ Block conditions   blocks.go
//	Node labels ─┼─ cache ──┼──▶ BGPPeer status     peers.go
//	NodeNetwork ─┤          ├──▶ BGPConfiguration   blocks.go
//	BGPPeer ─────┤          ├──▶ Events on objects  events.go
//	NetworkPolicy┤          ├──▶ policies, tiers    policies.go, programmed.go
//	Leases ──────┤          └──▶ nodes not heard of hearts.go
//	Tier ────────┤
//	HostEndpoint ┘
//
// Policies whose kinds not every cluster has it lists now and then (guests.go).
// It also makes the first pools of a new cluster (defaults.go) and deletes the
// blocks of nodes that are gone (collect.go). Nothing on the path of a packet or
// a starting pod waits for it: while no controller runs, status stands still and
// all else goes on.
//
// Each loop reads the cache, decides in a pure function, writes what differs and
// tells by an Event what turned bad. No loop runs for one object more often than
// once in pace, however much happens. Pods are read only when a block is to be
// deleted, and never kept.
package controller
