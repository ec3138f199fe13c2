// Package selector is the language in which policies say who they mean:
//
//	app == 'db' && env in {'prod', 'stage'} && !has(canary)
//
// A Selector is made by Parse or, where the source is structured (a Kubernetes
// label selector), by the constructors, never by gluing text together. It is
// brought to a canonical form once: negations are pushed to the leaves, operands
// are sorted and deduplicated, value sets over the same label are merged. Its
// text is therefore an identity: equal texts select equal things, and the usual
// ways of writing the same thing have equal texts.
//
// A Selector also names its hooks: labels of which something must be present on
// whatever it selects. policy/match indexes by them, so that a changed pod asks
// only the selectors that can concern it.
//
// The grammar, where L is a label name and S a quoted string without escapes:
//
//	or      = and { "||" and }
//	and     = operand { "&&" operand }
//	operand = { "!" } ( "has(" L ")" | "all()" | "global()" | "(" or ")"
//	          | L ( "==" | "!=" | "contains" | "starts with" | "ends with" ) S
//	          | L ( "in" | "not in" ) "{" [ S { "," S } ] "}" )
//
// Everything here is pure and safe for concurrent use.
package selector
