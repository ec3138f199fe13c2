package nftables

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// subsystem is that of nfnetlink.
const subsystem = unix.NFNL_SUBSYS_NFTABLES

// Attributes and values that the library does not name, or not well.
const (
	ruleChain    = unix.NFTA_RULE_CHAIN
	elementName  = unix.NFTA_SET_ELEM_LIST_SET
	tableDormant = 1 // NFT_TABLE_F_DORMANT
	policyDrop   = 0 // NF_DROP
	policyAccept = 1 // NF_ACCEPT
)

// maxElements bounds the bytes of elements in one message: the length of the
// attribute that holds them has 16 bits.
const maxElements = 60 << 10

func kindOf(message int) uint16 { return subsystem<<8 | uint16(message) }

// header is struct nfgenmsg.
func (t *Table) header() []byte { return []byte{byte(t.family), unix.NFNETLINK_V0, 0, 0} }

// begin begins a message about something in the table. The first attribute of
// each names the table.
func (t *Table) begin(m *nlsock.Messages, message int, flags uint16) *nlsock.Request {
	return m.Begin(kindOf(message), flags, t.header()).String(unix.NFTA_TABLE_NAME, t.name)
}

func (t *Table) newTable(m *nlsock.Messages) { t.begin(m, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE) }

func (t *Table) delTable(m *nlsock.Messages) { t.begin(m, unix.NFT_MSG_DELTABLE, 0) }

// flushTable removes the rules of all chains.
func (t *Table) flushTable(m *nlsock.Messages) { t.begin(m, unix.NFT_MSG_DELRULE, 0) }

// newChain makes a chain, or sets the policy of one that is there.
func (t *Table) newChain(m *nlsock.Messages, name string, h Hook) {
	r := t.begin(m, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE).String(unix.NFTA_CHAIN_NAME, name)
	if h == (Hook{}) {
		return
	}
	r.Nest(unix.NFTA_CHAIN_HOOK|nlsock.NestedFlag, func() {
		putUint32(r, unix.NFTA_HOOK_HOOKNUM, uint32(h.Number))
		putUint32(r, unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))
	})
	policy := uint32(policyAccept)
	if h.Drop {
		policy = policyDrop
	}
	putUint32(r, unix.NFTA_CHAIN_POLICY, policy)
	r.String(unix.NFTA_CHAIN_TYPE, string(h.Type))
}

func (t *Table) delChain(m *nlsock.Messages, name string) {
	t.begin(m, unix.NFT_MSG_DELCHAIN, 0).String(unix.NFTA_CHAIN_NAME, name)
}

// flushChain deletes all the rules of a chain.
func (t *Table) flushChain(m *nlsock.Messages, name string) {
	t.begin(m, unix.NFT_MSG_DELRULE, 0).String(ruleChain, name)
}

// newRules adds the rules of c to an empty chain.
func (t *Table) newRules(m *nlsock.Messages, name string, c *content) {
	for i := range c.rules {
		r := t.begin(m, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND).String(ruleChain, name)
		r.Raw(c.rules[i].exprs)
		r.Attr(unix.NFTA_RULE_USERDATA, c.userData(i))
	}
}

func (t *Table) newSetMessage(m *nlsock.Messages, name string, h header) {
	r := t.begin(m, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE).String(unix.NFTA_SET_NAME, name)
	putUint32(r, unix.NFTA_SET_FLAGS, h.flags)
	putUint32(r, unix.NFTA_SET_KEY_TYPE, h.keyType)
	putUint32(r, unix.NFTA_SET_KEY_LEN, h.keyLen)
	// The kernel wants a number, by which the same transaction could refer to it.
	putUint32(r, unix.NFTA_SET_ID, uint32(m.Count()))
	if h.dataType != 0 {
		putUint32(r, unix.NFTA_SET_DATA_TYPE, h.dataType)
	}
	if h.keyType == layout[IfName].magic || h.keyType == layout[MetaMark].magic {
		// For nft, which else prints the bytes in reverse: record 0 says that keys are
		// in the byte order (1) of the machine.
		r.Attr(unix.NFTA_SET_USERDATA, binary.NativeEndian.AppendUint32([]byte{0, 4}, 1))
	}
}

func (t *Table) delSet(m *nlsock.Messages, name string) {
	t.begin(m, unix.NFT_MSG_DELSET, 0).String(unix.NFTA_SET_NAME, name)
}

// flushSet deletes all elements.
func (t *Table) flushSet(m *nlsock.Messages, name string) {
	t.begin(m, unix.NFT_MSG_DELSETELEM, 0).String(elementName, name)
}

// elements begins a message that adds or deletes elements; add adds them until it
// says that the message is full.
func (t *Table) elements(m *nlsock.Messages, message int, s *set, add func(element func(Key, Verdict) (full bool))) {
	var flags uint16
	if message == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	r := t.begin(m, message, flags).String(elementName, s.name)
	start := m.Size()
	r.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS|nlsock.NestedFlag, func() {
		add(func(k Key, v Verdict) bool {
			if s.cover == nil {
				putElement(r, k, v, 0)
			} else {
				first, end, open := ends(k)
				putElement(r, first, "", 0)
				if !open {
					putElement(r, end, "", unix.NFT_SET_ELEM_INTERVAL_END)
				}
			}
			return m.Size()-start > maxElements
		})
	})
}

// putElement adds one element. A verdict is not needed to delete it.
func putElement(r *nlsock.Request, k Key, v Verdict, flags uint32) {
	r.Nest(unix.NFTA_LIST_ELEM|nlsock.NestedFlag, func() {
		r.Nest(unix.NFTA_SET_ELEM_KEY|nlsock.NestedFlag, func() { r.Text(unix.NFTA_DATA_VALUE, string(k)) })
		if flags != 0 {
			putUint32(r, unix.NFTA_SET_ELEM_FLAGS, flags)
		}
		if v != "" {
			r.Nest(unix.NFTA_SET_ELEM_DATA|nlsock.NestedFlag, func() { putVerdict(r, v) })
		}
	})
}

// verdictCodes are the verdicts as the kernel numbers them.
var verdictCodes = map[string]expr.VerdictKind{
	"accept": expr.VerdictAccept, "drop": expr.VerdictDrop, "return": expr.VerdictReturn,
	"jump": expr.VerdictJump, "goto": expr.VerdictGoto,
}

func putVerdict(r *nlsock.Request, v Verdict) {
	word, chain, _ := strings.Cut(string(v), " ")
	code, ok := verdictCodes[word]
	if !ok {
		panic("bug: verdict " + string(v))
	}
	putCode(r, code, chain)
}

// verdictOf reads what putVerdict wrote; of what we never write, "".
func verdictOf(data []byte) Verdict {
	word, chain := "", ""
	for kind, value := range nlsock.Attrs(data) {
		if kind != unix.NFTA_DATA_VERDICT {
			continue
		}
		for kind, value := range nlsock.Attrs(value) {
			switch {
			case kind == unix.NFTA_VERDICT_CODE && len(value) == 4:
				code := expr.VerdictKind(int32(binary.BigEndian.Uint32(value)))
				for w, c := range verdictCodes {
					if c == code {
						word = w
					}
				}
			case kind == unix.NFTA_VERDICT_CHAIN:
				chain = nlsock.Text(value)
			}
		}
	}
	if word != "" && chain != "" {
		return Verdict(word + " " + chain)
	}
	return Verdict(word)
}

// ends returns the first key of the prefix k, and the first one after it; open:
// there is none after it.
func ends(k Key) (first, end Key, open bool) {
	size := len(k) - 1
	n := int(k[size])
	if n == 0 {
		return k[:size], "", true
	}
	b := []byte(k[:size])
	carry := 1 << (7 - (n-1)%8)
	for i := (n - 1) / 8; i >= 0 && carry > 0; i-- {
		sum := int(b[i]) + carry
		b[i], carry = byte(sum), sum>>8
	}
	return k[:size], Key(b), carry > 0
}
