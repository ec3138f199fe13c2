package nlsock

import "golang.org/x/sys/unix"

// Shrink leaves c the smallest receive buffer that the kernel allows.
func (c *Conn) Shrink() error { return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) }
