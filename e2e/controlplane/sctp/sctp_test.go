package sctp

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// TestMessagesBothWaysAndAnEnd needs root, as raw sockets do.
func TestMessagesBothWaysAndAnEnd(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		l, err := ListenSCTP("sctp", &SCTPAddr{Port: 9132})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- echo(l) }()
		addr, err := ResolveSCTPAddr("sctp", host+":9132")
		if err != nil {
			t.Fatal(err)
		}
		c, err := DialSCTP("sctp", nil, addr)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		for i := range 5 {
			want, buf := fmt.Sprintf("message %d", i), make([]byte, 100)
			if _, err := c.Write([]byte(want)); err != nil {
				t.Fatalf("%s: write: %v", host, err)
			}
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != want {
				t.Fatalf("%s: read %q, %v: want %q", host, buf[:n], err, want)
			}
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(nil); err == nil {
			t.Errorf("%s: read something that nobody sent", host)
		}
		c.Close()
		if err := <-served; !errors.Is(err, io.EOF) {
			t.Errorf("%s: server: %v, want the end", host, err)
		}
		l.Close()
		if _, err := l.Accept(); err == nil {
			t.Errorf("%s: a closed listener accepts", host)
		}
	}
}

func echo(l *SCTPListener) error {
	c, err := l.AcceptSCTP()
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 100)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func TestParseRefusesWhatIsDamaged(t *testing.T) {
	good := packet{from: 1, to: 2, tag: 3, chunks: []chunk{{kind: data, body: []byte("odd")}, {kind: shutdownAck}}}.marshal()
	if p, ok := parse(good); !ok || len(p.chunks) != 2 || string(p.chunks[0].body) != "odd" || p.tag != 3 {
		t.Errorf("%+v %v", p, ok)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, ok := parse(bad); ok {
			t.Errorf("a packet with byte %d changed was taken", i)
		}
		if _, ok := parse(good[:i]); ok {
			t.Errorf("the first %d bytes of a packet were taken", i)
		}
	}
}
