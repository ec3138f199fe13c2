package lab

import (
	"context"
	"os"
	"slices"
)

// PowerOff ends a node as a power failure does: nobody hears a goodbye, and of its
// files only those on its disk are there when PowerOn starts it again.
func (l *Lab) PowerOff(node string) error {
	n, err := l.Node(node)
	if err != nil {
		return err
	}
	if err := unplugNode(n, l.netns); err != nil {
		return err
	}
	return l.machines[node].PowerOff()
}

// PowerOn starts the machine of a node that is off. None of the node's services
// runs yet.
func (l *Lab) PowerOn(ctx context.Context, node string) error {
	n, err := l.Node(node)
	if err != nil {
		return err
	}
	if err := l.makeNode(ctx, node); err != nil {
		return err
	}
	return plugNode(n, l.netns)
}

// Rename gives a node that is off another name. Its disk and its addresses stay,
// and so do the routers' names for their sessions with it.
func (l *Lab) Rename(node, name string) error {
	n, err := l.Node(node)
	if err != nil {
		return err
	}
	if err := os.Rename(l.machineDir(node), l.machineDir(name)); err != nil {
		return err
	}
	delete(l.machines, node)
	n.Rack.Nodes[slices.Index(n.Rack.Nodes, node)] = name
	return l.writeTopology()
}
