package sysctl

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Write sets a parameter of the calling thread's network namespace; path is below
// Root. As with os, an error is an *os.PathError.
func Write(path, value string) error { return write(filepath.Join(Root, path), value) }

// maxValue is how long a value may be that read returns.
const maxValue = 4096

// read and write do without os.File: parameters can be polled, so the runtime would
// have the kernel watch each one that it opens, and wake up at once. That takes twice
// the time, and attaching a pod is some ten of them.
func read(file string) (string, error) {
	fd, err := open(file, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [maxValue]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", &os.PathError{Op: "read", Path: file, Err: err}
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

func write(file, value string) error {
	fd, err := open(file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, []byte(value))
	if err == nil && n != len(value) {
		err = errors.New("not all of the value was taken")
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return &os.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

// open repeats what a signal interrupted, as os does.
func open(file string, mode int) (fd int, err error) {
	for {
		if fd, err = unix.Open(file, mode|unix.O_CLOEXEC, 0); err == nil {
			return fd, nil
		} else if !errors.Is(err, unix.EINTR) {
			return -1, &os.PathError{Op: "open", Path: file, Err: err}
		}
	}
}
