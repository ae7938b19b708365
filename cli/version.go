// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// release is the version of this program.
func release() string { return "0.1.0" }

func versionCommand() command {
	return command{
		name: "version", summary: "Show the sbx version information", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &versionOptions{}
			return o.flags(), o.run
		},
	}
}

type versionOptions struct {
	format string
}

func (o *versionOptions) flags() []option {
	return []option{textFlag(&o.format, "format", "f", inspectFormatUsage)}
}

// versionReport has Docker's two halves, of which here one program is both.
type versionReport struct {
	Client versionInfo
	Server versionInfo
}

type versionInfo struct {
	Version   string
	GitCommit string
	GoVersion string
	Os        string
	Arch      string
	BuildTime string
}

func (o *versionOptions) run(_ context.Context, c *client, _ []string) error {
	v := thisVersion()
	if o.format != "" {
		text, err := formatOne(o.format, versionReport{v, v})
		c.document(text)
		return err
	}
	if c.docker {
		c.write(v.asDocker())
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "sbx:\n Version:    %s\n Go version: %s\n", v.Version, v.GoVersion)
	if v.GitCommit != "" {
		fmt.Fprintf(&b, " Git commit: %s\n Built:      %s\n", v.GitCommit, v.BuildTime)
	}
	fmt.Fprintf(&b, " OS/Arch:    %s/%s\n", v.Os, v.Arch)
	c.write(b.String())
	c.warnForeign()
	return nil
}

// oneLineVersion is what --version prints.
func (c *client) oneLineVersion() string {
	v := thisVersion()
	line := program + " version " + v.Version
	if c.docker {
		line = "Docker version " + v.Version
	}
	if v.GitCommit != "" {
		line += ", build " + v.GitCommit
	}
	return line
}

// warnForeign says so when the shell finds another program of our name first.
func (c *client) warnForeign() {
	if path := c.foreignProgram(); path != "" {
		c.notice("another sbx comes first on PATH: %s (Docker has a product of that name); start this one by its full path, or put its directory first", path)
	}
}

// thisVersion reads what the toolchain wrote into the binary.
func thisVersion() versionInfo {
	v := versionInfo{Version: release(), GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	modified := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			v.BuildTime = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = "-dirty"
			}
		}
	}
	if v.GitCommit != "" {
		v.GitCommit += modified
	}
	return v
}
