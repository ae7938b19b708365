// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

func exportCommand() command {
	return command{
		name: "export", summary: "Export a container's filesystem as a tar archive",
		usage: "[OPTIONS] CONTAINER", forms: []string{"sbx container export", "sbx export"},
		min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &exportOptions{}
			return []option{textFlag(&o.output, "output", "o", "Write to a file, instead of STDOUT")}, o.run
		},
	}
}

type exportOptions struct{ output string }

func (o *exportOptions) run(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := home.Find(operands[0])
	if err != nil {
		return err
	}
	err = c.archive(ctx, o.output, func(ctx context.Context, w io.Writer) error { return ctr.Export(ctx, w) })
	if err != nil {
		return inContext("export", operands[0], err)
	}
	return nil
}

// archive lets write write to a file, or to standard output if that is none that
// somebody looks at. A file appears when it is whole.
func (c *client) archive(ctx context.Context, output string, write func(context.Context, io.Writer) error) error {
	return interruptible(ctx, func(ctx context.Context) error {
		if output != "" {
			return writeWhole(output, func(w io.Writer) error { return write(ctx, w) })
		}
		if isTerminal(c.out) {
			return errToTerminal
		}
		err := write(ctx, c.out)
		if errors.Is(err, syscall.EPIPE) {
			return nil // a reader that left early has had what it wanted
		}
		return err
	})
}

var errToTerminal = &statusError{status: statusFailed, err: errors.New("cowardly refusing to save to a terminal"), hint: "use the -o flag or redirect"}

// writeWhole writes a file beside its place and moves it there. What is no
// regular file, a device or a pipe, is written to.
func writeWhole(path string, write func(io.Writer) error) error {
	fi, err := os.Stat(path)
	if err == nil && fi.IsDir() {
		return fmt.Errorf("write %s: it is a directory", path)
	}
	if err == nil && !fi.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("write %s: %w", path, withoutPath(err))
		}
		return errors.Join(write(f), f.Close())
	}
	if target, linkErr := filepath.EvalSymlinks(path); err == nil && linkErr == nil {
		path = target
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sbx-save-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, withoutPath(err))
	}
	defer os.Remove(f.Name())
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return withoutTemp(err, f.Name(), path)
}

// withoutTemp calls the file by the name that the user gave it.
func withoutTemp(err error, temp, path string) error {
	var p *os.PathError
	if errors.As(err, &p) && p.Path == temp {
		return fmt.Errorf("write %s: %w", path, p.Err)
	}
	return err
}
