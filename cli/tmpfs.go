// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"sbx/container"
)

// parseTmpfs reads the value of --tmpfs: TARGET[:OPTIONS].
func parseTmpfs(spec string) (container.Mount, error) {
	target, options, _ := strings.Cut(spec, ":")
	m := container.Mount{Type: container.Tmpfs}
	var err error
	if m.Target, err = cleanTarget(target); err == nil {
		m.Options, err = tmpfsOptions(options)
	}
	if err != nil {
		return container.Mount{}, fmt.Errorf("invalid tmpfs %q: %w", spec, err)
	}
	return m, nil
}

// tmpfsOptions checks mount options of a tmpfs. Programs may be executed on it
// only on request, as on Docker.
func tmpfsOptions(options string) (string, error) {
	var out []string
	exec := false
	for o := range strings.SplitSeq(options, ",") {
		name, value, hasValue := strings.Cut(o, "=")
		switch name {
		case "":
			if o != "" {
				return "", fmt.Errorf("invalid tmpfs option %q", o)
			}
			continue
		case "exec", "noexec":
			exec = true
		case "ro", "noatime":
		case "rw", "suid", "nosuid", "dev", "nodev", "atime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
			"nostrictatime", "sync", "async", "dirsync", "private", "rprivate", "defaults":
			name = "" // what a tmpfs here is anyway, or what makes no difference to one
		case "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol", "huge":
			if value == "" || strings.ContainsAny(value, " \t\n\x00") {
				return "", fmt.Errorf("tmpfs option %s has no value", name)
			}
			out = append(out, o)
			continue
		default:
			return "", fmt.Errorf("invalid tmpfs option %q", o)
		}
		if hasValue {
			return "", fmt.Errorf("invalid tmpfs option %q", o)
		}
		if name != "" {
			out = append(out, o)
		}
	}
	if !exec {
		out = append(out, "noexec")
	}
	return strings.Join(out, ","), nil
}
