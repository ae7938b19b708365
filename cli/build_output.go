// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"sbx/build"
	"sbx/container"
)

// buildOutput is where a result goes beside the store.
type buildOutput struct {
	kind string // "local", "tar", "oci", "docker", "registry"
	dest string
}

// parseOutputs reads -o: type=KIND,dest=PATH, or a path alone, which is a
// directory, or "-" for a tar on standard output. Of several platforms not every kind
// can hold all.
func (o *buildOptions) parseOutputs(several bool) ([]buildOutput, error) {
	var outputs []buildOutput
	for _, spec := range o.outputs {
		out := buildOutput{}
		if !strings.Contains(spec, "=") {
			out = buildOutput{kind: "local", dest: spec}
			if spec == "-" {
				out.kind = "tar"
			}
			outputs = append(outputs, out)
			continue
		}
		push := false
		for field := range strings.SplitSeq(spec, ",") {
			name, value, ok := strings.Cut(field, "=")
			if !ok {
				return nil, fmt.Errorf("invalid value %s", field)
			}
			switch strings.ToLower(name) {
			case "type":
				out.kind = value
			case "dest":
				out.dest = value
			case "name":
				o.tags = append(o.tags, strings.Split(value, ",")...)
			case "push":
				push = value == "true"
			}
		}
		switch out.kind {
		case "local", "tar", "oci":
			if out.dest == "" && out.kind == "local" {
				return nil, errors.New("dest is required for local output")
			}
		case "docker", "registry", "image", "cacheonly":
		default:
			return nil, fmt.Errorf("unsupported exporter type %q", out.kind)
		}
		if out.kind == "image" && push {
			out.kind = "registry"
		}
		outputs = append(outputs, out)
	}
	if o.push {
		outputs = append(outputs, buildOutput{kind: "registry"})
	}
	for _, out := range outputs {
		if out.kind == "registry" && len(o.tags) == 0 {
			return nil, errors.New("tag is needed when pushing to registry")
		}
	}
	if several {
		return outputs, checkSeveral(outputs)
	}
	return outputs, nil
}

// deliver writes the result where it was asked for.
func (o *buildOptions) deliver(ctx context.Context, c *client, home *container.Home, results []build.Result, outputs []buildOutput, p *buildPrinter) error {
	for _, out := range outputs {
		var err error
		switch out.kind {
		case "local":
			for _, r := range results {
				err = errors.Join(err, build.ExportDir(ctx, home.Store, r, localDest(out.dest, r, len(results) > 1)))
			}
		case "tar":
			err = o.toFile(c, out.dest, func(f *os.File) error { return build.ExportTar(ctx, home.Store, results[0], f) })
		case "oci", "docker":
			if out.kind == "docker" && out.dest == "" {
				continue // it is in the store
			}
			err = o.toFile(c, out.dest, func(f *os.File) error { return build.ExportArchive(ctx, home.Store, results, o.familiar(), f) })
		case "registry":
			for _, tag := range o.tags {
				if len(results) > 1 {
					err = errors.Join(err, pushIndex(ctx, c, home, results, tag))
				} else {
					err = errors.Join(err, (&pushOptions{quiet: true}).push(ctx, c, tag))
				}
			}
		}
		if err != nil {
			return fmt.Errorf("export %s: %w", out.kind, err)
		}
		p.line("exported %s %s", out.kind, out.dest)
	}
	return nil
}

// toFile hands a file to write, or standard output.
func (o *buildOptions) toFile(c *client, dest string, write func(*os.File) error) error {
	if dest == "" || dest == "-" {
		if isTerminal(c.out) {
			return errors.New("dest file is required for the exporter. refusing to write to console")
		}
		return write(c.out)
	}
	f, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
