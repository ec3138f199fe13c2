package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/koratnet/korat/e2e/lab/machine"
)

// agentAddress is where an agent answers /readyz, /livez and /metrics, inside
// its node.
const agentAddress = "127.0.0.1:9099"

// StartAgent starts the node's agent, from the binary that is now in Bin, and
// returns when it is ready.
func (l *Lab) StartAgent(ctx context.Context, node string) error {
	if err := l.installBinaries(); err != nil {
		return err
	}
	if err := l.launchAgent(node); err != nil {
		return err
	}
	return l.WaitAgent(ctx, node)
}

func (l *Lab) launchAgent(node string) error {
	if _, err := l.Node(node); err != nil {
		return err
	}
	return l.machines[node].Start(agentService, machine.Command{Args: []string{
		machine.BinDir + "/korat", "agent",
		"--kubeconfig", agentKubeconfig, "--node-name", node,
		"--state-dir", "/var/lib/korat", "--run-dir", "/run/korat", "--http-address", agentAddress,
	}})
}

// KillAgent ends the node's agent with SIGKILL and returns when it is gone.
func (l *Lab) KillAgent(ctx context.Context, node string) error {
	return l.end(ctx, node, syscall.SIGKILL)
}

// StopAgent ends the node's agent with SIGTERM and returns when it is gone.
func (l *Lab) StopAgent(ctx context.Context, node string) error {
	return l.end(ctx, node, syscall.SIGTERM)
}

func (l *Lab) end(ctx context.Context, node string, sig syscall.Signal) error {
	if _, err := l.Node(node); err != nil {
		return err
	}
	return l.signal(ctx, l.machines[node], agentService, sig)
}

// KillRunner ends the node's runner with SIGKILL. Pods keep running.
func (l *Lab) KillRunner(ctx context.Context, node string) error {
	if _, err := l.Node(node); err != nil {
		return err
	}
	return l.signal(ctx, l.machines[node], runnerService, syscall.SIGKILL)
}

// stop ends a service kindly, and by force if it takes too long.
func (l *Lab) stop(ctx context.Context, m *machine.Machine, service string) error {
	kindly, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := l.signal(kindly, m, service, syscall.SIGTERM); err == nil {
		return nil
	}
	return l.signal(ctx, m, service, syscall.SIGKILL)
}

func (l *Lab) signal(ctx context.Context, m *machine.Machine, service string, sig syscall.Signal) error {
	if err := m.Signal(service, sig); err != nil {
		return err
	}
	return Eventually(ctx, func(context.Context) error {
		s, err := m.Service(service)
		if err == nil && s.Running {
			err = fmt.Errorf("%s on %s still runs", service, m.Name)
		}
		return err
	})
}

// WaitAgent waits until the node's agent says that it is ready.
func (l *Lab) WaitAgent(ctx context.Context, node string) error {
	m := l.machines[node]
	return Eventually(ctx, func(ctx context.Context) error {
		s, err := m.Service(agentService)
		if err != nil {
			return err
		}
		if !s.Running {
			return fmt.Errorf("agent of %s: %s; see %s", node, s.Status, m.Log(agentService))
		}
		if _, err := l.AgentGet(ctx, node, "/readyz"); err != nil {
			return fmt.Errorf("agent of %s is not ready: %w", node, err)
		}
		return nil
	})
}

// AgentGet asks the node's agent over HTTP, for "/metrics" as an example. An
// answer other than 200 is an error that holds the answer.
func (l *Lab) AgentGet(ctx context.Context, node, path string) (string, error) {
	m := l.machines[node]
	c := http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = machine.InNetns(machine.NetnsPath(m.Netns), func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		}},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+agentAddress+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + ": " + strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// AgentPID is the agent's process as the host numbers it; zero if it does not run.
func (l *Lab) AgentPID(node string) (int, error) {
	m := l.machines[node]
	s, err := m.Service(agentService)
	if err != nil || !s.Running {
		return 0, err
	}
	return m.HostPID(s), nil
}
