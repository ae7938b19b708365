// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sbx/container"
)

// containers is the condition that the filters of ps make: a container must
// satisfy one of the values of each name.
func (f filters) containers() (func(*container.Container) bool, error) {
	names, err := f.patterns("name")
	if err != nil {
		return nil, err
	}
	exposed, err := f.ports("expose")
	if err != nil {
		return nil, err
	}
	published, err := f.ports("publish")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"status", "health"} {
		for _, v := range f[name] {
			if !slices.Contains(filterValues[name], v) {
				return nil, &usageError{text: fmt.Sprintf("invalid filter '%s=%s'", name, v), hint: "there are " + strings.Join(filterValues[name], ", ")}
			}
		}
	}
	return func(c *container.Container) bool {
		return f.matches(c) && (len(names) == 0 || slices.ContainsFunc(names, func(r *regexp.Regexp) bool {
			// Docker's names begin with a slash.
			return r.MatchString(c.Config.Name) || r.MatchString("/"+c.Config.Name)
		})) && hasPort(exposed, published, c)
	}, nil
}

// filterValues are what some filters can have, in Docker's words. Some of the
// states are none of ours.
var filterValues = map[string][]string{
	"status": {"created", "running", "paused", "restarting", "removing", "exited", "dead"},
	"health": {container.HealthStarting, container.HealthHealthy, container.HealthUnhealthy, "none"},
}

// patterns reads the values of a name as regular expressions.
func (f filters) patterns(name string) ([]*regexp.Regexp, error) {
	var list []*regexp.Regexp
	for _, v := range f[name] {
		r, err := regexp.Compile(v)
		if err != nil {
			return nil, &usageError{text: fmt.Sprintf("invalid filter '%s=%s'", name, v), hint: "want a regular expression, as RE2 reads them"}
		}
		list = append(list, r)
	}
	return list, nil
}

// portFilter is a range of ports of a protocol.
type portFilter struct {
	first, last uint16
	proto       string
}

func (p portFilter) has(port uint16, proto string) bool {
	return proto == p.proto && p.first <= port && port <= p.last
}

// ports reads PORT[/PROTO] or FIRST-LAST[/PROTO].
func (f filters) ports(name string) ([]portFilter, error) {
	var list []portFilter
	for _, v := range f[name] {
		numbers, proto, hasProto := strings.Cut(v, "/")
		if !hasProto {
			proto = "tcp"
		}
		first, last, isRange := strings.Cut(numbers, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || a > b || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			return nil, &usageError{text: fmt.Sprintf("invalid filter '%s=%s'", name, v), hint: "want PORT[/PROTOCOL] or FIRST-LAST[/PROTOCOL]"}
		}
		list = append(list, portFilter{uint16(a), uint16(b), proto})
	}
	return list, nil
}

// hasPort reports whether a container exposes or publishes one of the ports, as
// ps shows them. Docker's condition on the two together is that one holds.
func hasPort(exposed, published []portFilter, c *container.Container) bool {
	if len(exposed)+len(published) == 0 {
		return true
	}
	for _, b := range c.State.Network.Bindings {
		if slices.ContainsFunc(published, func(p portFilter) bool { return p.has(b.Host, b.Proto) }) ||
			slices.ContainsFunc(exposed, func(p portFilter) bool { return p.has(b.Port, b.Proto) }) {
			return true
		}
	}
	return c.State.Status.IsAlive() && slices.ContainsFunc(c.Config.Networking.Exposed, func(e string) bool {
		number, proto, _ := strings.Cut(e, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		return err == nil && slices.ContainsFunc(exposed, func(p portFilter) bool { return p.has(uint16(n), proto) })
	})
}

// matches holds the filters that are plain texts against a container.
func (f filters) matches(c *container.Container) bool {
	return f.labels(c.Config.Labels) &&
		f.any("id", func(v string) bool { return strings.HasPrefix(c.ID(), v) }) &&
		f.any("status", func(v string) bool { return string(c.State.Status) == v }) &&
		f.any("health", func(v string) bool { return healthOf(c) == v }) &&
		f.any("exited", func(v string) bool {
			return c.State.Status == container.Exited && strconv.Itoa(c.State.ExitCode) == v
		}) &&
		f.any("network", func(v string) bool { return slices.Contains(networkNames(c), v) }) &&
		f.any("ancestor", func(v string) bool { return isAncestor(c, v) }) &&
		f.any("volume", func(v string) bool {
			return slices.ContainsFunc(c.Config.Mounts, func(m container.Mount) bool {
				return m.Target == v || m.Source == v || m.VolumeName() == v
			})
		})
}

// healthOf is a container's health in a word: none where nobody checks.
func healthOf(c *container.Container) string {
	if h := c.State.Health; h != nil && c.State.Status.IsAlive() {
		return h.Status
	}
	return "none"
}

// isAncestor reports whether a container was made of the image that typed names.
func isAncestor(c *container.Container, typed string) bool {
	if c.Config.Image == typed || c.Config.ImageName == typed {
		return true
	}
	id := strings.TrimPrefix(c.Config.ImageID, "sha256:")
	if short := strings.TrimPrefix(typed, "sha256:"); len(short) >= 4 && isHex(short) && strings.HasPrefix(id, short) {
		return true
	}
	names, err := namesOf(typed)
	return err == nil && slices.Contains(names, c.Config.ImageName)
}
