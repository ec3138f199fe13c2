package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/flow/wire"
)

// drops checks that the node of shop/web tells who denied what guest/cid asked it:
// the policies of which no rule matches.
func (s *story) drops(ctx context.Context) {
	tool := filepath.Join(s.bin, "koratctl")
	cid, web := s.end("guest/cid"), s.end("shop/web")
	s.within(ctx, enforce, "koratctl drops on web's node names the policies that keep cid from web", func(ctx context.Context) error {
		text, err := s.output(ctx, s.nodeOf(web).Name, tool, "drops", "shop/web", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		var causes []string
		err = ask.Read(strings.NewReader(text), func(l wire.Line) error {
			if d := l.Drop; d != nil && d.Src == cid.Addr && d.Dst == web.Addr && d.DstPort == port {
				causes = append(causes, d.Reason.Policies...)
			}
			return nil
		})
		if err == nil && !slices.Contains(causes, "knp/shop/guests-to-web") {
			err = fmt.Errorf("it names %v in\n%s", causes, text)
		}
		return err
	})
	if text, err := s.output(ctx, s.nodeOf(web).Name, tool, "drops", "shop/web"); err == nil {
		s.show("# koratctl drops shop/web\n" + lastLines(text, 5))
	}
}

// lastLines returns the last few lines of a text.
func lastLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}
