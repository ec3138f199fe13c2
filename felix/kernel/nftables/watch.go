package nftables

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Watch calls tell whenever others have changed the table, until ctx ends, which
// is no error. Apply then looks at what they changed, and mends it. What happens
// between Open and Watch is told too. Watch may run beside everything else, once
// at a time.
func (t *Table) Watch(ctx context.Context, tell func()) error {
	for {
		err := t.ears.listener.Wait(ctx)
		if ctx.Err() != nil {
			return nil
		}
		news := false
		if err == nil {
			news, err = t.ears.hear()
		}
		if err != nil {
			return fmt.Errorf("watch table %s: %w", t.name, err)
		}
		if news {
			tell()
		}
	}
}

// maxSuspects is how many objects are looked at one by one; beyond, everything
// is.
const maxSuspects = 64

// ears keep what others were heard to change in the table.
type ears struct {
	listener *nlsock.Listener
	family   Family
	table    string

	mu sync.Mutex // guards what follows, which Watch and the Table's owner share
	suspects
}

// suspects are objects that are perhaps not as we knew them.
type suspects struct {
	all          bool
	chains, sets map[string]struct{}
	// generation is the last one that others made. Everything that led to it was
	// heard before it.
	generation uint32
}

// take returns the suspects and forgets them.
func (e *ears) take() suspects {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.suspects
	e.suspects = suspects{}
	return s
}

// hear takes in what has come, and reports whether some of it was about the table.
func (e *ears) hear() (news bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	err = e.listener.Hear(func(kind uint16, body []byte) { news = e.message(kind, body) || news })
	if errors.Is(err, nlsock.ErrOverrun) {
		e.all, news, err = true, true, nil
	}
	return news, err
}

// message takes in one notification, and reports whether it is about the table.
func (e *ears) message(kind uint16, body []byte) bool {
	if len(body) < 4 || kind>>8 != subsystem {
		return false
	}
	if kind&0xff == unix.NFT_MSG_NEWGEN {
		e.generation = generationOf(body)
		return false
	}
	if Family(body[0]) != e.family {
		return false
	}
	// The first attribute of all that concerns a table is its name.
	table, second, third := "", "", ""
	for kind, value := range attrs(body) {
		switch kind {
		case unix.NFTA_TABLE_NAME:
			table = nlsock.Text(value)
		case 2:
			second = nlsock.Text(value)
		case 3:
			third = nlsock.Text(value)
		}
	}
	if table != e.table {
		return false
	}
	if e.all {
		return true
	}
	switch kind & 0xff {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		e.all = true
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		put(&e.chains, third) // NFTA_CHAIN_NAME
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		put(&e.chains, second) // NFTA_RULE_CHAIN
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET, unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		put(&e.sets, second) // NFTA_SET_NAME, NFTA_SET_ELEM_LIST_SET
	}
	e.all = e.all || len(e.chains)+len(e.sets) > maxSuspects
	return true
}

func put(into *map[string]struct{}, name string) {
	if *into == nil {
		*into = map[string]struct{}{}
	}
	(*into)[name] = struct{}{}
}
