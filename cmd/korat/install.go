package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/koratnet/korat/felix/conflist"
)

func installCommand() *cobra.Command {
	var to string
	const plugin = conflist.Plugin
	cmd := &cobra.Command{
		Use: "install-cni", Short: "Put the CNI plugin where the container runtime finds it", Args: cobra.NoArgs,
		Long: "Put the CNI plugin, " + plugin + " beside this program, where the container runtime finds it.\nA pod of the agent does it before the agent starts.",
		RunE: func(*cobra.Command, []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			return install(filepath.Join(filepath.Dir(self), plugin), filepath.Join(to, plugin))
		},
	}
	cmd.Flags().StringVar(&to, "to", "/opt/cni/bin", "directory of the CNI plugins")
	return cmd
}

// install copies a program in one step: the runtime may be starting the old one.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*")
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("install %s: %w", to, err), os.Remove(out.Name()))
	}
	return nil
}
