package nftables_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// TestWritesAndReadsGetThroughWhileOthersWrite: every transaction of another
// program makes ours one of an older generation, and interrupts our dumps.
func TestWritesAndReadsGetThroughWhileOthersWrite(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	want := func(table *nftables.Table, round int) {
		wantSmall(table)
		for i := range 300 {
			table.WantChain(chain(fmt.Sprint("chain", i), from("nets", expr.VerdictAccept, ""), always(expr.VerdictDrop, "")))
		}
		table.WantMembers("hosts", addrs(fmt.Sprintf("fd00::%d", round))...)
	}
	var other *nftables.Table
	n.Do(func() {
		var err error
		if other, err = nftables.Open(nftables.Inet, "other"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { other.Close() })
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			other.WantChain(chain("c", from("s", expr.VerdictAccept, "")))
			other.WantSet(nftables.Set{Name: "s", Key: v4})
			other.SetMembers("s", addrs(fmt.Sprintf("10.0.0.%d", i%250))...)
			if err := other.Apply(t.Context()); err != nil {
				t.Errorf("the other: %v", err)
				return
			}
		}
	})
	for round := range 30 {
		want(table, round)
		mustApply(t, table)
		if round%10 == 0 {
			mustResync(t, table)
			mustApply(t, table)
		}
	}
	close(stop)
	group.Wait()
	sameAsNew(t, n, kerneltest.New(t), func(table *nftables.Table) { want(table, 29) })
}

// TestALargeLoadIsPutInPiecesAndThenHooked: until the last transaction no packet
// meets any of it.
func TestALargeLoadIsPutInPiecesAndThenHooked(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	want := func(table *nftables.Table) {
		wantMembers(table)
		wantChains(table, 2_000)
	}
	want(table)
	mustApply(t, table)
	if got := table.Stats().Transactions; got < 10 {
		t.Errorf("%d transactions", got)
	}
	mustResync(t, table)
	writesNothing(t, table, func() { mustApply(t, table) })

	told := watch(t, table)
	edit(t, n, "delete table inet korat")
	<-told
	mustApply(t, table)
	again := start(t, n)
	want(again)
	again.AllowRemoval()
	writesNothing(t, again, func() { mustApply(t, again) })
}
