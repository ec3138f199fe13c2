package calc

import (
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
)

// programs compiles the active policies, one program for each direction that a
// policy isolates.
type programs struct {
	said said[ir.ProgramID, ir.Program]
}

func newPrograms() programs {
	return programs{said: newSaid[ir.ProgramID](sameProgram)}
}

func (p *programs) drain(policies *policies) {
	for _, c := range policies.changed {
		for _, d := range policy.Directions {
			if c.is != nil && c.is.Types&d != 0 {
				p.said.say(ir.ProgramID{Policy: c.is.Key, Direction: d}, compile.Compile(c.is, d, compile.SetIDOf))
			} else if c.was != nil {
				p.said.say(ir.ProgramID{Policy: c.was.Key, Direction: d}, nil)
			}
		}
	}
}

func sameProgram(a, b *ir.Program) bool {
	return a.ID == b.ID && slices.EqualFunc(a.Rules, b.Rules, sameRule)
}

func sameRule(a, b ir.Rule) bool {
	return a.Action == b.Action && a.Family == b.Family && a.Protocol == b.Protocol &&
		slices.Equal(a.SrcNets, b.SrcNets) && slices.Equal(a.DstNets, b.DstNets) &&
		slices.Equal(a.NotSrcNets, b.NotSrcNets) && slices.Equal(a.NotDstNets, b.NotDstNets) &&
		slices.Equal(a.SrcSets, b.SrcSets) && slices.Equal(a.DstSets, b.DstSets) &&
		slices.Equal(a.DstPorts, b.DstPorts)
}
