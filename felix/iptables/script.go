package iptables

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// script is the input of one iptables-restore for one table. It remembers what
// each line is for, so that a complaint about a line finds its chain.
type script struct {
	bytes.Buffer
	lines []string // chain of each line, "" for lines that belong to none
}

func newScript(table string) *script {
	s := &script{}
	s.line("", "*"+table)
	return s
}

func (s *script) line(chain, text string) {
	s.WriteString(text + "\n")
	s.lines = append(s.lines, chain)
}

// declare makes the chain, or empties it where it is.
func (s *script) declare(name string) { s.line(name, ":"+name+" - [0:0]") }

func (s *script) fill(c chain) {
	for i := range c.rules {
		s.line(c.name, "-A "+c.name+" "+c.body(i))
	}
}

// lineNumber finds the number in all the ways in which the two flavours say it:
// "line 3: RULE_APPEND failed", "occurred at line: 8", "line 2 failed".
var lineNumber = regexp.MustCompile(`\bline:? (\d+)`)

// blame returns the chains that the lines in a complaint belong to, and whether
// the complaint named lines at all. Legacy names only the COMMIT for what the
// kernel refuses, and then it is no chain's line.
func (s *script) blame(complaint string) (chains []string, lines bool) {
	for _, m := range lineNumber.FindAllStringSubmatch(complaint, -1) {
		lines = true
		n, err := strconv.Atoi(m[1])
		if err == nil && n >= 1 && n <= len(s.lines) && s.lines[n-1] != "" {
			chains = append(chains, s.lines[n-1])
		}
	}
	return chains, lines
}

// jumps returns the own chains that the rules of c lead to.
func jumps(c chain) []string {
	var to []string
	for _, r := range c.rules {
		i := strings.LastIndexByte(r.spec, ' ')
		if name := r.spec[i+1:]; ownName.MatchString(name) {
			to = append(to, name)
		}
	}
	return to
}
