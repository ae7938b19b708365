// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"regexp"
	"strings"
)

// dockerProgram is the name of a link to this program by which it answers as
// Docker: for scripts and editors that call docker.
const dockerProgram = "docker"

// name is what this program was called.
func (c *client) name() string {
	if c.docker {
		return dockerProgram
	}
	return program
}

// own puts the name that this program was called by into the command lines of a
// text.
func (c *client) own(text string) string {
	if !c.docker {
		return text
	}
	return ownName().ReplaceAllString(text, dockerProgram+"$1")
}

func ownName() *regexp.Regexp { return regexp.MustCompile(`\bsbx( [a-z-])`) }

// asDocker is the version in Docker's layout, of which programs read both halves.
func (v versionInfo) asDocker() string {
	var b strings.Builder
	line := func(indent int, name, value string) {
		fmt.Fprintf(&b, "%*s%-*s%s\n", indent, "", 19-indent, name+":", value)
	}
	b.WriteString("Client: sbx\n")
	line(1, "Version", v.Version)
	line(1, "Go version", v.GoVersion)
	line(1, "Git commit", v.GitCommit)
	line(1, "Built", v.BuildTime)
	line(1, "OS/Arch", v.Os+"/"+v.Arch)
	line(1, "Context", "default")
	b.WriteString("\nServer: sbx\n Engine:\n")
	line(2, "Version", v.Version)
	line(2, "Go version", v.GoVersion)
	line(2, "Git commit", v.GitCommit)
	line(2, "Built", v.BuildTime)
	line(2, "OS/Arch", v.Os+"/"+v.Arch)
	line(2, "Experimental", "false")
	return b.String()
}
