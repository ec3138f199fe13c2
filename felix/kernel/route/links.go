package route

import (
	"errors"
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
	up     map[int]bool // has a carrier
}

func newLinks(conn *nlsock.Conn) *links {
	return &links{conn: conn, byName: map[string]int{}, names: map[int]string{}, up: map[int]bool{}}
}

// read reads all interfaces.
func (l *links) read() error {
	request := nlsock.NewRequest(unix.RTM_GETLINK, 0, nlsock.Bytes(&unix.IfInfomsg{}))
	return l.conn.Dump(request, func() {
		clear(l.byName)
		clear(l.names)
		clear(l.up)
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
	request := nlsock.NewRequest(unix.RTM_GETLINK, 0, nlsock.Bytes(&unix.IfInfomsg{})).String(unix.IFLA_IFNAME, name)
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

// nameNow returns the name of an interface, and asks if need be; it is empty when
// there is none any more.
func (l *links) nameNow(index int) (string, error) {
	if _, ok := l.names[index]; !ok {
		if err := l.ask(index); err != nil {
			return "", err
		}
	}
	return l.names[index], nil
}

// carrier reports whether an interface is up and its other end is there.
func (l *links) carrier(index int) (bool, error) {
	if _, ok := l.up[index]; !ok {
		if err := l.ask(index); err != nil {
			return false, err
		}
	}
	return l.up[index], nil
}

// ask learns an interface by its index. That there is none is no error.
func (l *links) ask(index int) error {
	request := nlsock.NewRequest(unix.RTM_GETLINK, 0, nlsock.Bytes(&unix.IfInfomsg{Index: int32(index)}))
	err := l.conn.Get(request, func(body []byte) error { l.learn(body); return nil })
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (l *links) forget(name string) {
	delete(l.up, l.byName[name])
	delete(l.names, l.byName[name])
	delete(l.byName, name)
}

func (l *links) learn(body []byte) {
	if len(body) < unix.SizeofIfInfomsg {
		return
	}
	info := (*unix.IfInfomsg)(unsafe.Pointer(&body[0]))
	index := int(info.Index)
	l.up[index] = info.Flags&unix.IFF_UP != 0 && info.Flags&unix.IFF_LOWER_UP != 0
	for attr, value := range nlsock.Attrs(body[unix.SizeofIfInfomsg:]) {
		if attr == unix.IFLA_IFNAME {
			name := nlsock.Text(value)
			l.byName[name], l.names[index] = index, name
		}
	}
}
