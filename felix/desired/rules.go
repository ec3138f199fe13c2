package desired

import "github.com/koratnet/korat/policy/eval"

// Rules returns what s says in the words of policy/eval, which judges what
// becomes of it.
func (s Settings) Rules() eval.HostRules {
	return eval.HostRules{
		PodToHost: s.PodToHost, Invalid: s.Invalid, Loops: s.Loops, PodTunnels: s.PodTunnels,
		FailsafeIn: failsafes(s.FailsafeIn), FailsafeOut: failsafes(s.FailsafeOut),
	}
}

func failsafes(list []Failsafe) []eval.Failsafe {
	out := make([]eval.Failsafe, len(list))
	for i, f := range list {
		out[i] = eval.Failsafe(f)
	}
	return out
}
