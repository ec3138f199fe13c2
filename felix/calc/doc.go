// Package calc is the engine: it turns what the node was told (events) into what
// the node should look like (desired.Delta), touching only what an event
// affects. felix/agent owns one Engine on one goroutine.
//
//	Put(event)                 tables: the last value per key, and what it was
//	   │
//	settings ─▶ ranges         how the data plane behaves; pools and nodes as sets  ─▶ Settings, Sets
//	               ▲
//	advertised ────┤           addresses of services that this node serves          ─▶ Paths
//	   └▶ offers   │           the same, under the advertisements that select them  ─▶ Paths
//	           learnable       of which prefixes neighbours may teach routes
//	   │
//	labels ──────────┐         pods, network sets, host endpoints and nodes as things
//	   │             │         with labels and addresses; namespaces, service accounts
//	   │         services      where services lead, by their endpoint slices
//	   │             │
//	subjects         │         which policies select which local endpoints, and doubt
//	   │             │
//	policies         │         active here, in the order of tiers
//	   ├──────────── sets      peers of active policies → members                  ─▶ Sets
//	   ├──────────── programs  one per enforced policy and direction               ─▶ Programs
//	   ├──────────── uses      what each active policy selects here, to be told    ─▶ Policies
//	   ▼
//	endpoints ◀── holders      chains of each local endpoint; one holder an address ─▶ Endpoints
//	   ▲             │
//	floats ──────────┤         floating addresses that lead to local endpoints
//	                 │
//	tunnels ───────▶ hosts     chains of this node's interfaces, and whose they are ─▶ HostEndpoints
//	                 │
//	pools, blocks ─▶ routes    local pods over own blocks over learned next hops   ─▶ Routes
//	   │             │
//	   └───────────▶ paths     what we originate                                   ─▶ Paths
//	speaker ◀── fabric         who we are to BGP, and our neighbours               ─▶ Speaker, Closed
//
// When another backend is chosen, the Delta tells all that concerns backends
// once more.
//
// Flush drains the stages in this order; Engine.Flush is the whole building in
// one view. The contract of a stage:
//
//  1. Its output is a function of the present inputs, never of history. The
//     tests hold every stage to that with an oracle that knows no history.
//  2. It walks dirty keys only. A loop over a whole map says why it is small.
//  3. What it added under a key it removes under the same key.
//  4. A missing reference has a defined, closed result, which heals.
//  5. No clock, no lock, no goroutine, no I/O, no log.
//  6. Conflicts are settled here, the same way on every node and in every order.
//  7. It reads earlier stages and writes only itself.
package calc
