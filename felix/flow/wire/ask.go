package wire

import (
	"context"
	"io"
	"net/netip"
	"net/url"
	"path/filepath"

	"github.com/koratnet/korat/felix/ask"
)

// DefaultSocket is where the agent answers unless it is told another run directory.
const DefaultSocket = "/run/korat/" + Socket

// Question chooses drops: those of any of the pods (namespace/name) or addresses,
// all if there are none. Follow asks for what comes as well.
type Question struct {
	Pods   []string
	Addrs  []netip.Addr
	Follow bool
}

// SocketIn returns the socket in a run directory.
func SocketIn(runDir string) string { return filepath.Join(runDir, Socket) }

// Open asks the agent behind a socket. The answer is Lines; it ends by itself, or
// with ctx where the question follows. The caller closes it.
func Open(ctx context.Context, socket string, q Question) (io.ReadCloser, error) {
	params := url.Values{PodParam: q.Pods}
	for _, a := range q.Addrs {
		params.Add(AddrParam, a.String())
	}
	if q.Follow {
		params.Set(FollowParam, "")
	}
	return ask.Open(ctx, socket, DropsPath, params)
}
