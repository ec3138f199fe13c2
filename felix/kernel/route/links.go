package route

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// links knows interfaces by name and by index. Both change under us: what is not
// known is asked for, what notifications told of is forgotten.
type links struct {
	conn   *nlsock.Conn
	byName map[string]int
	names  map[int]string
}

func newLinks(conn *nlsock.Conn) *links {
	return &links{conn: conn, byName: map[string]int{}, names: map[int]string{}}
}

// read reads all interfaces.
func (l *links) read() error {
	request := nlsock.NewRequest(unix.RTM_GETLINK, 0, bytesOf(&unix.IfInfomsg{}))
	return l.conn.Dump(request, func() {
		clear(l.byName)
		clear(l.names)
	}, func(kind uint16, body []byte) error {
		if kind == unix.RTM_NEWLINK {
			l.learn(body)
		}
		return nil
	})
}

// index returns the index of an interface; the error wraps ENODEV when there is
// none of this name.
func (l *links) index(name string) (int, error) {
	if index, ok := l.byName[name]; ok {
		return index, nil
	}
	request := nlsock.NewRequest(unix.RTM_GETLINK, 0, bytesOf(&unix.IfInfomsg{})).String(unix.IFLA_IFNAME, name)
	if err := l.conn.Get(request, func(body []byte) error { l.learn(body); return nil }); err != nil {
		return 0, err
	}
	index, ok := l.byName[name]
	if !ok {
		return 0, fmt.Errorf("the kernel told of another interface: %w", unix.ENODEV)
	}
	return index, nil
}

// name returns the name of an interface. It does not ask, because it is called
// in the middle of a dump: an interface that came after the last read is unnamed
// then, and what hangs on it is written once more than needed.
func (l *links) name(index int) string {
	if name, ok := l.names[index]; ok {
		return name
	}
	return unnamed(index)
}

func (l *links) forget(name string) {
	delete(l.names, l.byName[name])
	delete(l.byName, name)
}

func (l *links) learn(body []byte) {
	if len(body) < unix.SizeofIfInfomsg {
		return
	}
	index := int((*unix.IfInfomsg)(unsafe.Pointer(&body[0])).Index)
	for attr, value := range nlsock.Attrs(body[unix.SizeofIfInfomsg:]) {
		if attr == unix.IFLA_IFNAME {
			name := nlsock.Text(value)
			l.byName[name], l.names[index] = index, name
		}
	}
}
