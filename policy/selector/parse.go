package selector

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what Parse accepts.
const (
	MaxLength = 1024 // characters of a text
	MaxDepth  = 50   // parentheses within parentheses
	maxLabel  = 512  // characters of a label name
)

// Error says where a text stopped being a selector.
type Error struct {
	Column   int    // in characters, the first is 1
	Expected string // what could have stood there
	Found    string // what did
}

// Error returns "column 5: expected …, found …".
func (e *Error) Error() string {
	return fmt.Sprintf("column %d: expected %s, found %s", e.Column, e.Expected, e.Found)
}

// Parse reads a selector. The empty text selects everything. A text that is
// none yields an *Error.
func Parse(text string) (*Selector, error) {
	if n := utf8.RuneCountInString(text); n > MaxLength {
		return nil, &Error{
			Column:   MaxLength + 1,
			Expected: fmt.Sprintf("at most %d characters", MaxLength),
			Found:    fmt.Sprintf("%d", n),
		}
	}
	p := parser{text: text}
	if p.skipSpace(); p.end() {
		return All(), nil
	}
	n, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if !p.end() {
		return nil, p.unexpected(`"&&", "||" or the end`)
	}
	return newSelector(n), nil
}

// parser reads text by recursive descent. Between its methods the position is
// always at the next token, with no space before it.
type parser struct {
	text string
	pos  int // bytes
}

func (p *parser) or(depth int) (*node, error) {
	return p.list(or, "||", func() (*node, error) { return p.and(depth) })
}

func (p *parser) and(depth int) (*node, error) {
	return p.list(and, "&&", func() (*node, error) { return p.operand(depth) })
}

// list reads items separated by op.
func (p *parser) list(k kind, op string, item func() (*node, error)) (*node, error) {
	var kids []*node
	for {
		n, err := item()
		if err != nil {
			return nil, err
		}
		kids = append(kids, n)
		if !p.accept(op) {
			return join(k, kids), nil
		}
	}
}

func (p *parser) operand(depth int) (*node, error) {
	not := false
	for p.accept("!") {
		not = !not
	}
	n, err := p.positive(depth)
	if err == nil && not {
		n = n.negated()
	}
	return n, err
}

// positive reads an operand without its negations.
func (p *parser) positive(depth int) (*node, error) {
	if p.peek("(") {
		if depth == MaxDepth {
			return nil, p.unexpected(fmt.Sprintf("at most %d levels of parentheses", MaxDepth))
		}
		p.accept("(")
		n, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		return n, p.expect(")", `"&&", "||" or ")"`)
	}
	start := p.pos
	word, err := p.label(`a label name, has(…), all(), global(), "!" or "("`)
	if err != nil {
		return nil, err
	}
	if !p.peek("(") {
		return p.comparison(word)
	}
	switch word {
	case "all", "global":
		p.accept("(")
		if word == "all" {
			return allNode, p.expect(")", `")"`)
		}
		return leafNode(global, "", ""), p.expect(")", `")"`)
	case "has":
		p.accept("(")
		key, err := p.label("a label name")
		if err != nil {
			return nil, err
		}
		return leafNode(has, key, ""), p.expect(")", `")"`)
	}
	p.pos = start
	return nil, p.unexpected("has(…), all() or global()")
}

// comparison reads what follows a label name.
func (p *parser) comparison(key string) (*node, error) {
	switch {
	case p.accept("=="):
		return p.valueNode(func(v string) *node { return setNode(key, []string{v}, false) })
	case p.accept("!="):
		return p.valueNode(func(v string) *node { return setNode(key, []string{v}, true) })
	case p.acceptWord("contains"):
		return p.valueNode(func(v string) *node { return leafNode(contains, key, v) })
	case p.acceptWord("starts"):
		return p.withNode(startsWith, key)
	case p.acceptWord("ends"):
		return p.withNode(endsWith, key)
	case p.acceptWord("in"):
		return p.setNode(key, false)
	case p.acceptWord("not"):
		if !p.acceptWord("in") {
			return nil, p.unexpected(`"in" after "not"`)
		}
		return p.setNode(key, true)
	}
	return nil, p.unexpected(`"==", "!=", "in", "not in", "contains", "starts with" or "ends with"`)
}

// withNode reads the rest of "starts with" and "ends with".
func (p *parser) withNode(k kind, key string) (*node, error) {
	if !p.acceptWord("with") {
		return nil, p.unexpected(`"with"`)
	}
	return p.valueNode(func(v string) *node { return leafNode(k, key, v) })
}

func (p *parser) valueNode(build func(string) *node) (*node, error) {
	v, err := p.value("a string in quotes")
	if err != nil {
		return nil, err
	}
	return build(v), nil
}

// setNode reads a list of values in braces.
func (p *parser) setNode(key string, not bool) (*node, error) {
	if err := p.expect("{", `"{"`); err != nil {
		return nil, err
	}
	var values []string
	if p.accept("}") {
		return setNode(key, nil, not), nil
	}
	for {
		v, err := p.value("a string in quotes")
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if p.accept("}") {
			return setNode(key, values, not), nil
		}
		if err := p.expect(",", `"," or "}"`); err != nil {
			return nil, err
		}
	}
}

// value reads a quoted string. There are no escapes: the text ends at the next
// quote of the same kind.
func (p *parser) value(expected string) (string, error) {
	if !p.peek("'") && !p.peek(`"`) {
		return "", p.unexpected(expected)
	}
	body := p.text[p.pos+1:]
	end := strings.IndexByte(body, p.text[p.pos])
	if end < 0 {
		quote := p.text[p.pos : p.pos+1]
		p.pos = len(p.text)
		return "", p.unexpected("a closing " + quote)
	}
	p.advance(end + 2)
	return body[:end], nil
}

// label reads a label name, or a word that stands where one could.
func (p *parser) label(expected string) (string, error) {
	n := labelLength(p.text[p.pos:])
	switch {
	case n == 0:
		return "", p.unexpected(expected)
	case n > maxLabel:
		return "", p.unexpected(fmt.Sprintf("a label name of at most %d characters", maxLabel))
	}
	word := p.text[p.pos : p.pos+n]
	p.advance(n)
	return word, nil
}

// acceptWord consumes word if it stands here as a whole.
func (p *parser) acceptWord(word string) bool {
	if p.text[p.pos:p.pos+labelLength(p.text[p.pos:])] != word {
		return false
	}
	p.advance(len(word))
	return true
}

// accept consumes token if it stands here.
func (p *parser) accept(token string) bool {
	if !p.peek(token) {
		return false
	}
	p.advance(len(token))
	return true
}

func (p *parser) expect(token, expected string) error {
	if !p.accept(token) {
		return p.unexpected(expected)
	}
	return nil
}

func (p *parser) peek(token string) bool { return strings.HasPrefix(p.text[p.pos:], token) }

func (p *parser) advance(n int) {
	p.pos += n
	p.skipSpace()
}

func (p *parser) skipSpace() {
	for !p.end() && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *parser) end() bool { return p.pos == len(p.text) }

// unexpected reports that something else should stand at the present position.
func (p *parser) unexpected(expected string) error {
	return &Error{
		Column:   utf8.RuneCountInString(p.text[:p.pos]) + 1,
		Expected: expected,
		Found:    p.found(),
	}
}

// found quotes the word or character at the present position.
func (p *parser) found() string {
	if p.end() {
		return "the end"
	}
	n := labelLength(p.text[p.pos:])
	if n == 0 {
		_, n = utf8.DecodeRuneInString(p.text[p.pos:])
	}
	const enough = 30
	if n > enough {
		return fmt.Sprintf("%q…", p.text[p.pos:p.pos+enough])
	}
	return fmt.Sprintf("%q", p.text[p.pos:p.pos+n])
}

// labelLength returns how many bytes at the start of s may stand in a label name.
func labelLength(s string) int {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("_./-", c) >= 0:
		default:
			return i
		}
	}
	return len(s)
}
