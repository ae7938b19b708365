// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sbx/container"
)

// logConfig reads --log-driver and --log-opt.
func (f *containerFlags) logConfig() (container.LogConfig, error) {
	l := container.LogConfig{Driver: f.logDriver}
	switch f.logDriver {
	case "", container.LogJSON, container.LogNone:
	case container.LogLocal:
		l.MaxSize, l.MaxFiles, l.Compress = 20<<20, 5, true // its defaults
	default:
		return l, &statusError{status: statusSbx, err: fmt.Errorf("logger: no log driver named '%s' is registered", f.logDriver), hint: "there are json-file, local and none"}
	}
	for _, opt := range f.logOpts {
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			return l, fmt.Errorf("invalid logging opt: %s", opt)
		}
		if l.Driver == container.LogNone {
			return l, fmt.Errorf("unknown log opt '%s' for none log driver", name)
		}
		if err := setLogOption(&l, name, value); err != nil {
			return l, err
		}
		if l.Options == nil {
			l.Options = map[string]string{}
		}
		l.Options[name] = value
	}
	switch {
	case l.MaxFiles > 1 && l.MaxSize == 0:
		return l, errors.New("max-file cannot be set without max-size")
	case l.Compress && l.MaxFiles < 2 && l.Driver == container.LogLocal:
		return l, errors.New("compression cannot be enabled when max file count is 1")
	case l.Compress && (l.MaxFiles < 2 || l.MaxSize == 0):
		return l, errors.New("compress cannot be true when max-file is less than 2 or max-size is not set")
	case l.Options["max-buffer-size"] != "" && l.Options["mode"] != "non-blocking":
		return l, errors.New("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	return l, nil
}

// setLogOption takes one option.
func setLogOption(l *container.LogConfig, name, value string) error {
	if l.Driver == container.LogLocal && slices.Contains([]string{"labels", "labels-regex", "env", "env-regex", "tag"}, name) {
		return fmt.Errorf("unknown log opt '%s' for local log driver", name)
	}
	switch name {
	case "max-size":
		n, err := parseSize(value)
		if err != nil || n < 1 {
			return fmt.Errorf("invalid max-size %q: it must be a positive number of bytes, like 10m", value)
		}
		l.MaxSize = n
	case "max-file":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return fmt.Errorf("invalid max-file %q: it must be 1 or more", value)
		}
		l.MaxFiles = n
	case "labels", "env":
	case "labels-regex", "env-regex":
		if _, err := regexp.Compile(value); err != nil {
			return fmt.Errorf("invalid %s %q: it must be a regular expression", name, value)
		}
	case "tag":
		if _, err := formatOne(value, logTag{}); err != nil {
			return fmt.Errorf("invalid tag %q: %w", value, err)
		}
	case "compress":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid compress %q: it must be true or false", value)
		}
		l.Compress = on
	case "mode":
		switch value {
		case "blocking":
		case "non-blocking":
			if l.Buffer == 0 {
				l.Buffer = 1 << 20 // Docker's
			}
		default:
			return fmt.Errorf("logger: logging mode '%s' not supported", value)
		}
	case "max-buffer-size":
		n, err := parseSize(value)
		if err != nil || n < 1 || n > 1<<30 {
			return fmt.Errorf("invalid max-buffer-size %q: it must be a number of bytes up to 1g, like 4m", value)
		}
		l.Buffer = int(n)
	default:
		return fmt.Errorf("unknown log opt '%s' for %s log driver", name, or(l.Driver, container.LogJSON))
	}
	return nil
}

// logTag is what the template of --log-opt tag can name.
type logTag struct {
	Command, DaemonName, FullID, ID, ImageFullID, ImageID, ImageName, Name string
}

func newLogTag(c *container.Config) logTag {
	return logTag{
		Command: strings.Join(c.Command(), " "), DaemonName: program, FullID: c.ID, ID: shortID(c.ID), ImageFullID: c.ImageID,
		ImageID: shortID(strings.TrimPrefix(c.ImageID, "sha256:")), ImageName: c.Image, Name: c.Name,
	}
}

// logDetails are the labels and variables that --log-opt labels and env name, and
// the tag.
func logDetails(c *container.Config) string {
	options := c.Log.Options
	var pairs []string
	add := func(kind, name, value string) {
		pattern := options[kind+"-regex"]
		matched, err := regexp.MatchString(pattern, name)
		if slices.Contains(strings.Split(options[kind], ","), name) || pattern != "" && err == nil && matched {
			pairs = append(pairs, name+"="+value)
		}
	}
	for name, value := range c.Labels {
		add("labels", name, value)
	}
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		add("env", name, value)
	}
	if form := options["tag"]; form != "" {
		if tag, err := formatOne(form, newLogTag(c)); err == nil {
			pairs = append(pairs, "tag="+strings.TrimSuffix(tag, "\n"))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
