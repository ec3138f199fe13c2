// Package whoami is what a pod of the lab runs: a server that answers everyone
// with its own name and the address it sees the client come from. Over TCP it
// speaks HTTP, over UDP it answers each datagram with the same line.
package whoami

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Answer is the line that server name sends to client.
func Answer(name string, client netip.AddrPort) string {
	return fmt.Sprintf("%s sees %s\n", name, netip.AddrPortFrom(client.Addr().Unmap(), client.Port()))
}

// ParseAnswer is the inverse of Answer.
func ParseAnswer(line string) (name string, client netip.AddrPort, err error) {
	name, addr, ok := strings.Cut(strings.TrimSpace(line), " sees ")
	if !ok {
		return "", netip.AddrPort{}, fmt.Errorf("not an answer: %q", line)
	}
	client, err = netip.ParseAddrPort(addr)
	return name, client, err
}

// Serve serves as name on the ports, written like "tcp/80", until ctx ends.
// It calls ready once all ports are open.
func Serve(ctx context.Context, name string, ports []string, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range ports {
		proto, port, _ := strings.Cut(p, "/")
		var err error
		switch proto {
		case "tcp":
			err = serveTCP(ctx, g, name, port)
		case "udp":
			err = serveUDP(ctx, g, name, port)
		default:
			err = errors.New("want tcp/PORT or udp/PORT")
		}
		if err != nil {
			return fmt.Errorf("port %s: %w", p, err)
		}
	}
	ready()
	g.Go(func() error { <-ctx.Done(); return nil }) // also with no ports at all
	return g.Wait()
}

func serveTCP(ctx context.Context, g *errgroup.Group, name, port string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _ := netip.ParseAddrPort(r.RemoteAddr)
		fmt.Fprint(w, Answer(name, client))
	})}
	context.AfterFunc(ctx, func() { srv.Close() })
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

func serveUDP(ctx context.Context, g *errgroup.Group, name, port string) error {
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", ":"+port)
	if err != nil {
		return err
	}
	udp := c.(*net.UDPConn)
	context.AfterFunc(ctx, func() { udp.Close() })
	g.Go(func() error {
		buf := make([]byte, 1<<16)
		for {
			_, client, err := udp.ReadFromUDPAddrPort(buf)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				continue // an ICMP error of an earlier answer; the socket is still good
			}
			udp.WriteToUDPAddrPort([]byte(Answer(name, client)), client)
		}
	})
	return nil
}

// Reply is what a probe heard.
type Reply struct {
	// Server is who answered, Client the address that it saw.
	Server string
	Client netip.AddrPort
	Took   time.Duration
}

// Ask asks the server at addr over proto, "tcp" or "udp", and waits at most
// wait. The socket is in the network namespace of the calling thread, so that
// it can be called by machine.InNetns.
func Ask(proto string, addr netip.AddrPort, wait time.Duration) (Reply, error) {
	start := time.Now()
	conn, err := net.DialTimeout(proto, addr.String(), wait) // one literal address: dialled here and not on another thread
	if err != nil {
		return Reply{}, err
	}
	defer conn.Close()
	line, err := exchange(conn, addr, start.Add(wait))
	if err != nil {
		return Reply{}, fmt.Errorf("ask %s %s: %w", proto, addr, err)
	}
	// An HTTP answer is headers, an empty line, and our line.
	if _, body, ok := strings.Cut(line, "\r\n\r\n"); ok {
		line = body
	}
	r := Reply{Took: time.Since(start)}
	r.Server, r.Client, err = ParseAnswer(line)
	return r, err
}

func exchange(conn net.Conn, addr netip.AddrPort, deadline time.Time) (string, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", addr); err != nil {
		return "", err
	}
	var text []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(text), " sees ") || !strings.HasSuffix(string(text), "\n") {
		n, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		text = append(text, buf[:n]...)
	}
	return string(text), nil
}
