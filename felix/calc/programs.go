package calc

import (
	"slices"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/compile"
	"github.com/koratnet/korat/policy/ir"
)

// programs compiles the active policies that are enforced, one program for each
// direction that a policy isolates.
type programs struct {
	said said[ir.ProgramID, ir.Program]
}

func newPrograms() programs {
	return programs{said: newSaid[ir.ProgramID](sameProgram)}
}

func (p *programs) drain(policies *policies) {
	for _, c := range policies.changed {
		was, is := enforced(c.was), enforced(c.is)
		for _, d := range policy.Directions {
			if is != nil && is.Types&d != 0 {
				p.said.say(ir.ProgramID{Policy: is.Key, Direction: d}, compile.Compile(is, d, compile.SetIDOf))
			} else if was != nil {
				p.said.say(ir.ProgramID{Policy: was.Key, Direction: d}, nil)
			}
		}
	}
}

func sameProgram(a, b *ir.Program) bool {
	return a.ID == b.ID && slices.EqualFunc(a.Rules, b.Rules, sameRule)
}

func sameRule(a, b ir.Rule) bool {
	return a.Action == b.Action && a.Family == b.Family && a.Protocol == b.Protocol && a.Message == b.Message && a.Origin == b.Origin &&
		slices.Equal(a.NotProtocols, b.NotProtocols) && slices.Equal(a.NotMessages, b.NotMessages) &&
		slices.Equal(a.SrcNets, b.SrcNets) && slices.Equal(a.DstNets, b.DstNets) &&
		slices.Equal(a.NotSrcNets, b.NotSrcNets) && slices.Equal(a.NotDstNets, b.NotDstNets) &&
		slices.Equal(a.SrcSets, b.SrcSets) && slices.Equal(a.DstSets, b.DstSets) &&
		slices.Equal(a.NotSrcSets, b.NotSrcSets) && slices.Equal(a.NotDstSets, b.NotDstSets) &&
		slices.Equal(a.SrcPortSets, b.SrcPortSets) && slices.Equal(a.DstPortSets, b.DstPortSets) &&
		slices.Equal(a.NotSrcPortSets, b.NotSrcPortSets) && slices.Equal(a.NotDstPortSets, b.NotDstPortSets) &&
		slices.Equal(a.SrcPorts, b.SrcPorts) && slices.Equal(a.DstPorts, b.DstPorts)
}
