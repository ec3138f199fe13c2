package dataplanetest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/eval"
	"github.com/koratnet/korat/policy/ir"
)

var (
	clusters = flag.Int("clusters", 60, "number of random clusters of each differential test")
	seed     = flag.Uint64("seed", 0, "replay one cluster of the differential tests")
)

// Differential draws clusters, brings them into the kernel one after another in
// the same world, and sends real packets all ways: what arrives must be what
// policy/eval lets through.
func Differential(t *testing.T, b Backend) {
	t.Helper()
	oneCPU(t)
	j := newJudge(t, b)
	j.judge(wanted, func(seed uint64) trial {
		c := drawCluster(seed)
		return trial{cluster: c, node: c.host(), shots: c.shots(j.world), tell: func() { j.tell(c) }}
	})
}

// trial is a case for the judge.
type trial struct {
	*cluster
	node  *eval.Host // what policy/eval knows of it
	shots []shot
	tell  func() // brings it into the kernel, in the place of the one before
}

// judge compares the kernel with policy/eval.
type judge struct {
	*world
	engine  *calc.Engine
	records *records
	known   map[event.Key]bool // what the engine has been told
	flows   []shot             // established connections of earlier clusters

	all, passed, established int
	why                      reasons
}

func newJudge(t *testing.T, b Backend) *judge {
	t.Helper()
	w := newWorld(t, b)
	w.begin()
	j := &judge{world: w, engine: calc.New(calc.Config{Node: "here"}), known: map[event.Key]bool{}, why: reasons{}}
	j.records = newRecords(t, w.node)
	j.engine.Synced(event.API | event.CNI | event.Neighbours)
	return j
}

// judge plays trials in which everything that is wanted decides, and then many
// random ones; or the one that -seed names.
func (j *judge) judge(wanted []reason, draw func(seed uint64) trial) {
	j.t.Helper()
	if *seed != 0 {
		j.play(draw(*seed))
		j.records.compare()
		return
	}
	j.telling(wanted, draw)
	for range *clusters {
		if len(j.used) > 40_000 { // ports are used again: what is known of them has to go
			j.records.compare()
			j.flows = nil
			j.freePorts()
			j.node.Run("conntrack", "-F")
		}
		j.play(draw(rand.Uint64()))
	}
	j.records.compare()
	j.t.Logf("%d random clusters, %d packets, %d of them let through, %d of established connections; decided by:\n%s",
		*clusters, j.all, j.passed, j.established, j.why)
}

// telling plays trials that together have every reason that is wanted. Which they
// are is not left to chance: the seeds from 1 on are asked of policy/eval, and those
// that bring something new are played.
func (j *judge) telling(wanted []reason, draw func(seed uint64) trial) {
	j.t.Helper()
	const most = 1000
	foretold := reasons{}
	for seed := uint64(1); len(foretold.missing(wanted)) > 0; seed++ {
		if seed > most {
			j.t.Fatalf("no seed up to %d brings %v", most, foretold.missing(wanted))
		}
		tr, before := draw(seed), len(foretold.missing(wanted))
		verdicts := tr.foretell(tr.shots, foretold)
		tr.foretell(j.answers(tr.shots, verdicts), foretold)
		if len(foretold.missing(wanted)) < before {
			j.play(tr)
		}
	}
	if missing := j.why.missing(wanted); len(missing) > 0 {
		j.t.Errorf("never decided: %v", missing)
	}
}

// foretell returns what policy/eval says of shots, and notes why.
func (tr trial) foretell(shots []shot, why reasons) []eval.Crossing {
	verdicts := make([]eval.Crossing, len(shots))
	for i, s := range shots {
		verdicts[i] = s.judged(tr.node)
		why.note(verdicts[i])
	}
	return verdicts
}

// play brings a trial into the kernel and judges what becomes of its packets, of
// answers to some of them, and of the connections of the trial before.
func (j *judge) play(tr trial) {
	j.t.Helper()
	tr.tell()
	for i := range j.flows {
		j.lastID++
		j.flows[i].id = j.lastID
	}
	shots := append(tr.shots, j.flows...)
	j.established += len(j.flows)
	answers := j.answers(shots, j.compare(tr, shots))
	verdicts := j.compare(tr, answers)
	j.flows = nil
	for i, a := range answers {
		if verdicts[i].Action == policy.Allow && !verdicts[i].Untracked {
			j.flows = append(j.flows, j.answer(a))
		}
	}
}

// answers returns answers to some of the shots that arrive: their connections are
// established.
func (j *judge) answers(shots []shot, verdicts []eval.Crossing) []shot {
	var answers []shot
	for i, s := range shots {
		if verdicts[i].Action == policy.Allow && s.Protocol == policy.UDP && !s.before.IsValid() && s.to.iface != "" &&
			!verdicts[i].Untracked && s.State == eval.New && len(answers) < 4 {
			answers = append(answers, j.answer(s))
		}
	}
	return answers
}

// answer returns a packet of the same connection in the other direction.
func (j *judge) answer(s shot) shot {
	j.lastID++
	p := s.Packet
	p.Src, p.Dst, p.SrcPort, p.DstPort, p.State = p.Dst, p.Src, p.DstPort, p.SrcPort, eval.Established
	return shot{from: s.to, to: s.from, packet: packet{p, j.lastID}}
}

// tell brings a cluster into the kernel, in the place of the one before.
func (j *judge) tell(c *cluster) {
	j.t.Helper()
	gone := j.known
	j.known = map[event.Key]bool{}
	for _, ev := range c.events {
		j.engine.Put(ev)
		delete(gone, ev.Key)
		j.known[ev.Key] = true
	}
	for key := range gone {
		j.engine.Put(event.Event{Key: key})
	}
	d := j.engine.Flush()
	// No range of services is announced yet by anything that the engine hears.
	if d.Sets == nil {
		d.Sets = map[ir.SetID]*desired.SetChange{}
	}
	d.Sets[desired.ServicesSet] = &desired.SetChange{Kind: ir.Nets, Whole: true, Add: map[ir.Member]struct{}{}}
	for _, net := range serviceNets {
		d.Sets[desired.ServicesSet].Add[ir.Member{Prefix: net}] = struct{}{}
	}
	if err := j.plane.want(j.t.Context(), d); err != nil {
		j.t.Fatalf("-seed=%d: %v\n%s", c.seed, err, &c.text)
	}
}

// compare sends shots and returns what policy/eval says of them, after it has made
// sure that the kernel says the same.
func (j *judge) compare(tr trial, shots []shot) []eval.Crossing {
	j.t.Helper()
	got, verdicts := j.fire(shots), tr.foretell(shots, j.why)
	var wrong strings.Builder
	for i, s := range shots {
		j.all++
		j.records.want(s, verdicts[i], tr.settings.DropRecords, tr.seed)
		want := verdicts[i].Action == policy.Allow
		if want {
			j.passed++
		}
		if _, arrived := got[s.id]; arrived != want {
			fmt.Fprintf(&wrong, "%s: arrived %v, policy/eval says %s\n%s", s, arrived, verdicts[i], explained(verdicts[i]))
		}
	}
	if wrong.Len() > 0 {
		j.t.Fatalf("-seed=%d\n%s%s", tr.seed, &wrong, &tr.text)
	}
	return verdicts
}

// judged returns what policy/eval says of a shot.
func (s shot) judged(host *eval.Host) eval.Crossing {
	c := host.Cross(s.way())
	if !c.Untracked || !s.before.IsValid() {
		return c
	}
	// Translation is part of tracking: the packet goes where it was sent to.
	w := s.way()
	w.Packet.Dst, w.Packet.DstPort, w.Before = s.before.Addr(), s.before.Port(), netip.AddrPort{}
	if w.Out = "eth0"; s.before.Port() != servicePort {
		w.Out = "" // a node port
	}
	return host.Cross(w)
}

// explained tells of every rule that was asked on a way.
func explained(c eval.Crossing) string {
	var b strings.Builder
	for _, step := range c.Steps {
		for _, t := range step.Decision.Trace {
			for _, p := range t.Programs {
				fmt.Fprintf(&b, "\t\t%s %s, tier %s: %s\n", step.At, step.Interface, t.Name, p.ID.Policy)
				for _, r := range p.Rules {
					why := "matches"
					if r.Mismatch != nil {
						why = r.Mismatch.String()
					}
					fmt.Fprintf(&b, "\t\t\trule %d, %s: %s\n", r.Origin, r.Text, why)
				}
			}
		}
	}
	return b.String()
}
