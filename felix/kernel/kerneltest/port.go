package kerneltest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The ports that tests listen on in the machine's own namespace. They lie below
// net.ipv4.ip_local_port_range (32768 and up): a port from that range may go to
// any connection that is made between the moment at which it was found free and
// the one at which the program under test listens on it, or listens again.
const (
	firstPort = 20000
	ports     = 10000
)

// nextPort gives every caller of the process another port. Processes begin in
// different places.
var nextPort = struct {
	sync.Mutex
	offset int
}{offset: rand.IntN(ports)}

// FreePort returns a port that is free over TCP and UDP on all addresses of the
// machine's own namespace, and that the kernel gives to nobody who does not ask
// for it by number. No other caller in this process is given it.
func FreePort() (uint16, error) {
	nextPort.Lock()
	defer nextPort.Unlock()
	var last error
	for range ports {
		nextPort.offset = (nextPort.offset + 1) % ports
		port := firstPort + nextPort.offset
		if last = free(port); last == nil {
			return uint16(port), nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d: %w", firstPort, firstPort+ports-1, last)
}

func free(port int) error {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
	if err != nil {
		return err
	}
	defer tcp.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	return udp.Close()
}
