package nlsock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

func openNetfilter(t *testing.T, n *kerneltest.Namespace) (c *nlsock.Conn) {
	t.Helper()
	n.Do(func() {
		var err error
		if c, err = nlsock.Open(unix.NETLINK_NETFILTER); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// about adds a message of nf_tables about the table "t", or about a chain in it.
func about(m *nlsock.Messages, kind int, chain string) {
	var flags uint16
	if kind == unix.NFT_MSG_NEWTABLE || kind == unix.NFT_MSG_NEWCHAIN {
		flags = unix.NLM_F_CREATE
	}
	r := m.Begin(unix.NFNL_SUBSYS_NFTABLES<<8|uint16(kind), flags, []byte{unix.NFPROTO_INET, 0, 0, 0}).String(unix.NFTA_TABLE_NAME, "t")
	if chain != "" {
		r.String(unix.NFTA_CHAIN_NAME, chain)
	}
}

func commit(t *testing.T, c *nlsock.Conn, generation uint32, parts ...*nlsock.Messages) ([]nlsock.Refusal, error) {
	t.Helper()
	var bodies [][]byte
	for _, m := range parts {
		bodies = append(bodies, m.Bytes())
	}
	return c.Commit(unix.NFNL_SUBSYS_NFTABLES, generation, bodies...)
}

func TestATransactionIsTakenWholeOrNotAtAll(t *testing.T) {
	n := kerneltest.New(t)
	c := openNetfilter(t, n)
	var first, second nlsock.Messages
	about(&first, unix.NFT_MSG_NEWTABLE, "")
	about(&first, unix.NFT_MSG_NEWCHAIN, "a")
	about(&second, unix.NFT_MSG_NEWCHAIN, "b")
	about(&second, unix.NFT_MSG_DELCHAIN, "missing")
	about(&second, unix.NFT_MSG_NEWCHAIN, "c")
	about(&second, unix.NFT_MSG_DELCHAIN, "missing as well")
	refusals, err := commit(t, c, 0, &first, &second)
	if err != nil || len(refusals) != 2 || refusals[0].Index != 3 || refusals[1].Index != 5 || !errors.Is(refusals[0].Err, unix.ENOENT) {
		t.Errorf("refusals %v, %v", refusals, err)
	}
	if list := n.Run("nft", "list", "ruleset"); list != "" {
		t.Errorf("something was taken:\n%s", list)
	}
	if refusals, err := commit(t, c, 0, &first); err != nil || len(refusals) != 0 {
		t.Errorf("without what was refused: %v, %v", refusals, err)
	}
	if list := n.Run("nft", "list", "ruleset"); !strings.Contains(list, "chain a {") {
		t.Errorf("not taken:\n%s", list)
	}
	if refusals, err := commit(t, c, 0); err != nil || len(refusals) != 0 {
		t.Errorf("an empty transaction: %v, %v", refusals, err)
	}
}

func TestATransactionOfAnOlderGenerationIsRefused(t *testing.T) {
	n := kerneltest.New(t)
	c := openNetfilter(t, n)
	var m nlsock.Messages
	about(&m, unix.NFT_MSG_NEWTABLE, "")
	if _, err := commit(t, c, 4711, &m); !errors.Is(err, unix.ERESTART) {
		t.Errorf("Commit: %v", err)
	}
	if refusals, err := commit(t, c, 0, &m); err != nil || len(refusals) != 0 {
		t.Errorf("of any generation: %v, %v", refusals, err)
	}
}

// TestAllAnswersToALargeTransactionCome: they are many more than the receive
// buffer has room for by default, and more than the send buffer for the request.
func TestAllAnswersToALargeTransactionCome(t *testing.T) {
	n := kerneltest.New(t)
	c := openNetfilter(t, n)
	var m nlsock.Messages
	const count = 30_000
	about(&m, unix.NFT_MSG_NEWTABLE, "")
	for i := range count {
		about(&m, unix.NFT_MSG_DELCHAIN, fmt.Sprintf("%064d", i))
	}
	refusals, err := commit(t, c, 0, &m)
	if err != nil || len(refusals) != count {
		t.Fatalf("%d refusals, %v", len(refusals), err)
	}
	for i, r := range refusals {
		if r.Index != i+1 {
			t.Fatalf("refusal %d is of message %d", i, r.Index)
		}
	}
}

func TestLostAnswersToATransactionAreAnError(t *testing.T) {
	n := kerneltest.New(t)
	c := openNetfilter(t, n)
	if err := c.Shrink(); err != nil {
		t.Fatal(err)
	}
	var m nlsock.Messages
	for i := range 200 {
		about(&m, unix.NFT_MSG_DELCHAIN, fmt.Sprint(i))
	}
	if _, err := commit(t, c, 0, &m); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("Commit: %v", err)
	}
	m.Reset()
	about(&m, unix.NFT_MSG_NEWTABLE, "")
	if refusals, err := commit(t, c, 0, &m); err != nil || len(refusals) != 0 {
		t.Errorf("the next: %v, %v", refusals, err)
	}
}

func TestAListenerHearsOthersOnly(t *testing.T) {
	n := kerneltest.New(t)
	c, other := openNetfilter(t, n), openNetfilter(t, n)
	var l *nlsock.Listener
	n.Do(func() {
		var err error
		if l, err = nlsock.Listen(unix.NETLINK_NETFILTER, c.Port(), unix.NFNLGRP_NFTABLES); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { l.Close() })
	change := func(c *nlsock.Conn, kind int, chain string) {
		t.Helper()
		var m nlsock.Messages
		about(&m, kind, chain)
		if refusals, err := commit(t, c, 0, &m); err != nil || len(refusals) > 0 {
			t.Fatal(refusals, err)
		}
	}
	heard := func() (kinds []int) {
		t.Helper()
		if err := l.Hear(func(kind uint16, _ []byte) { kinds = append(kinds, int(kind&0xff)) }); err != nil {
			t.Fatal(err)
		}
		return kinds
	}
	change(c, unix.NFT_MSG_NEWTABLE, "")
	if got := heard(); got != nil {
		t.Errorf("heard of an own change: %v", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := l.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	change(other, unix.NFT_MSG_NEWCHAIN, "a")
	if err := l.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(heard()); got != fmt.Sprint([]int{unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWGEN}) {
		t.Errorf("heard %v", got)
	}
	if err := l.Pause(); err != nil {
		t.Fatal(err)
	}
	change(other, unix.NFT_MSG_NEWCHAIN, "b")
	if err := l.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := heard(); got != nil {
		t.Errorf("heard while paused: %v", got)
	}
	change(other, unix.NFT_MSG_DELCHAIN, "b")
	if got := heard(); len(got) != 2 {
		t.Errorf("heard after a pause: %v", got)
	}
	var m nlsock.Messages
	for i := range 30_000 {
		about(&m, unix.NFT_MSG_NEWCHAIN, fmt.Sprintf("%064d", i))
	}
	if refusals, err := commit(t, other, 0, &m); err != nil || len(refusals) > 0 {
		t.Fatal(refusals, err)
	}
	if err := l.Hear(func(uint16, []byte) {}); !errors.Is(err, nlsock.ErrOverrun) {
		t.Errorf("after more than fits: %v", err)
	}
	change(other, unix.NFT_MSG_NEWCHAIN, "c")
	if got := heard(); len(got) != 2 {
		t.Errorf("heard after an overrun: %v", got)
	}
}
