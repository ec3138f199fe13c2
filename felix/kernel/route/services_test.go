package route_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// TestItem65ARouteForServicesWouldRefuseTheNodesOwn shows why unserved addresses of
// services have no unreachable route, as own blocks do: programs of the node are
// routed before kube-proxy translates what they ask for.
func TestItem65ARouteForServicesWouldRefuseTheNodesOwn(t *testing.T) {
	n := kerneltest.New(t)
	backend := kerneltest.Pod(n, "eth0")
	n.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	backend.Run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
	n.Run("ip", "route", "add", "default", "via", "192.0.2.2")
	n.Run("nft", "table ip proxy { chain output { type nat hook output priority -100; ip daddr 10.96.0.1 tcp dport 80 dnat to 192.0.2.2; }\n}")
	var l net.Listener
	backend.Do(func() {
		var err error
		if l, err = net.Listen("tcp4", "192.0.2.2:80"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { l.Close() })
	ask := func() (err error) {
		n.Do(func() {
			var c net.Conn
			if c, err = net.DialTimeout("tcp4", "10.96.0.1:80", 30*time.Second); err == nil {
				c.Close()
			}
		})
		return err
	}
	if err := ask(); err != nil {
		t.Fatalf("without a route: %v\n%s", err, strings.TrimSpace(fmt.Sprint(n.Routes(3))))
	}
	n.Run("ip", "route", "add", "unreachable", "10.96.0.0/12")
	if err := ask(); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("with an unreachable route: %v, expected that there is no route to the host", err)
	}
}
