package wireguard

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// control is how an interface is told what to do.
type control interface {
	read() (*wgtypes.Device, error)
	write(wgtypes.Config) error
}

// kernel is the control of an interface of the kernel.
type kernel struct {
	client *wgctrl.Client
	name   string
}

func (k kernel) read() (*wgtypes.Device, error) { return k.client.Device(k.name) }

func (k kernel) write(c wgtypes.Config) error { return k.client.ConfigureDevice(k.name, c) }

// process is the control of an interface of a process, by the configuration protocol
// of WireGuard (https://www.wireguard.com/xplatform) on its socket. The first line of
// a connection is ours: a process of another version than the one named there ends.
type process struct{ socket, version, greeting string }

// answerWithin bounds how long a process may take to answer.
const answerWithin = 10 * time.Second

// What the first line of a connection begins with: whoever only glances at a process
// of another version lets it go on, and is told nothing.
const (
	greeting = "korat="
	glance   = "korat-glance="
)

// dirOf returns the directory of the processes.
func dirOf(runDir string) string { return filepath.Join(runDir, "wireguard") }

// socketOf returns where the process of an interface listens.
func socketOf(runDir, device string) string { return filepath.Join(dirOf(runDir), device+".sock") }

// ask sends a request and hands every line of the answer to hear.
func (p process) ask(request []byte, hear func(key, value string) error) error {
	conn, err := net.DialTimeout("unix", p.socket, answerWithin)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s%s\n%s\n", p.greeting, p.version, request); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		switch {
		case !ok:
			return fmt.Errorf("answer has the line %q", lines.Text())
		case key == "errno" && value == "0":
			return nil
		case key == "errno":
			return fmt.Errorf("refused with error %s", value)
		}
		if err := hear(key, value); err != nil {
			return fmt.Errorf("%s: %w", key, err) // not the value, which may be secret
		}
	}
	return errors.Join(io.ErrUnexpectedEOF, lines.Err())
}

func (p process) read() (*wgtypes.Device, error) {
	d := &wgtypes.Device{}
	if err := p.ask([]byte("get=1\n"), func(key, value string) error { return hear(d, key, value) }); err != nil {
		return nil, err
	}
	return d, nil
}

func (p process) write(c wgtypes.Config) error {
	return p.ask(request(c), func(string, string) error { return nil })
}

// request is what tells c.
func request(c wgtypes.Config) []byte {
	var b bytes.Buffer
	b.WriteString("set=1\n")
	if c.PrivateKey != nil {
		fmt.Fprintf(&b, "private_key=%x\n", c.PrivateKey[:])
	}
	if c.ReplacePeers {
		b.WriteString("replace_peers=true\n")
	}
	if c.ListenPort != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *c.ListenPort)
	}
	for _, p := range c.Peers {
		fmt.Fprintf(&b, "public_key=%x\n", p.PublicKey[:])
		if p.Remove {
			b.WriteString("remove=true\n")
		}
		if p.UpdateOnly {
			b.WriteString("update_only=true\n")
		}
		if p.PresharedKey != nil {
			fmt.Fprintf(&b, "preshared_key=%x\n", p.PresharedKey[:])
		}
		if p.Endpoint != nil {
			fmt.Fprintf(&b, "endpoint=%s\n", p.Endpoint)
		}
		if k := p.PersistentKeepaliveInterval; k != nil {
			fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", int(k.Seconds()))
		}
		for _, a := range p.AllowedIPs {
			fmt.Fprintf(&b, "allowed_ip=%s\n", &a)
		}
	}
	return b.Bytes()
}

// hear notes a line of an answer. What is of no interest here is passed over.
func hear(d *wgtypes.Device, key, value string) (err error) {
	if key == "public_key" {
		d.Peers = append(d.Peers, wgtypes.Peer{})
	}
	var p *wgtypes.Peer
	if len(d.Peers) > 0 {
		p = &d.Peers[len(d.Peers)-1]
	}
	switch {
	case key == "private_key":
		return parseKey(&d.PrivateKey, value)
	case key == "listen_port":
		d.ListenPort, err = strconv.Atoi(value)
	case p == nil:
	case key == "public_key":
		return parseKey(&p.PublicKey, value)
	case key == "preshared_key":
		return parseKey(&p.PresharedKey, value)
	case key == "endpoint":
		var at netip.AddrPort
		at, err = netip.ParseAddrPort(value)
		p.Endpoint = net.UDPAddrFromAddrPort(at)
	case key == "allowed_ip":
		var a *net.IPNet
		if _, a, err = net.ParseCIDR(value); err == nil {
			p.AllowedIPs = append(p.AllowedIPs, *a)
		}
	case key == "rx_bytes":
		p.ReceiveBytes, err = strconv.ParseInt(value, 10, 64)
	case key == "tx_bytes":
		p.TransmitBytes, err = strconv.ParseInt(value, 10, 64)
	case key == "last_handshake_time_sec" && value != "0":
		var seconds int64
		seconds, err = strconv.ParseInt(value, 10, 64)
		p.LastHandshakeTime = time.Unix(seconds, 0)
	}
	return err
}

func parseKey(into *wgtypes.Key, text string) error {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(into) { // the error would quote the key
		return errors.New("no key")
	}
	copy(into[:], raw)
	return nil
}
