// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sbx/container"
	"sbx/store"
)

// parseVolume reads the value of -v: TARGET, or SOURCE:TARGET[:OPTIONS], where a
// source that begins with "/" or "." is a path of the host and any other the
// name of a volume.
func parseVolume(spec string) (m container.Mount, err error) {
	parts := strings.Split(spec, ":")
	switch {
	case slices.Contains(parts, ""):
		return m, &volumeError{spec: spec, text: "empty section between colons"}
	case len(parts) > 3:
		return m, &volumeError{spec: spec, text: "too many colons"}
	case len(parts) == 1:
		m.Target = parts[0]
	default:
		m.Source, m.Target = parts[0], parts[1]
	}
	m.Type = container.Volume
	if isPath(m.Source) {
		m.Type, m.Create = container.Bind, true
		m.Source, err = filepath.Abs(m.Source)
	} else if m.Source != "" && !store.ValidVolumeName(m.Source) {
		return m, &volumeError{spec: spec, text: fmt.Sprintf("%q is not a volume's name", m.Source),
			hint: "for a directory of this machine write its absolute path, or ./" + m.Source}
	} else {
		m.Name, m.Source = m.Source, ""
	}
	if err == nil {
		m.Target, err = cleanTarget(m.Target)
	}
	if err == nil && len(parts) == 3 {
		err = volumeOptions(&m, parts[2])
	}
	if err != nil {
		text, hint := describe(err)
		return container.Mount{}, &volumeError{spec: spec, text: text, hint: hint}
	}
	return m, nil
}

// volumeOptions reads the options of a -v into m.
func volumeOptions(m *container.Mount, options string) error {
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "rw":
		case "ro", "readonly":
			m.ReadOnly = true
		case "z", "Z": // no label keeps a container of ours from its own user's files
		case "private", "rprivate", "consistent", "cached", "delegated":
		case "nocopy", "volume-nocopy":
			m.NoCopy = true
		case "shared", "rshared", "slave", "rslave":
			return &propagationError{o}
		default:
			return fmt.Errorf("invalid mode: %s", o)
		}
	}
	return nil
}

// volumeError is a wrong -v, with advice where there is some.
type volumeError struct{ spec, text, hint string }

func (e *volumeError) Error() string {
	return fmt.Sprintf("invalid volume specification %q: %s", e.spec, e.text)
}

// Hint says how to write it.
func (e *volumeError) Hint() string { return e.hint }

// propagationError says that mounts cannot be passed on between the host and a
// container: of a mount namespace that a user makes, the kernel lets nothing out
// (mount_namespaces(7)), and what would come in could not be taken away again.
type propagationError struct{ mode string }

func (e *propagationError) Error() string {
	return "propagation " + e.mode + " is not possible: a container of a user without privileges has its own copy of the mounts"
}

// Hint says what is.
func (e *propagationError) Hint() string {
	return "leave it out (rprivate is what there is), and start the container after the mount is made"
}

func isPath(s string) bool { return s != "" && (s[0] == '/' || s[0] == '.') }

func cleanTarget(target string) (string, error) {
	if !filepath.IsAbs(target) {
		return "", fmt.Errorf("invalid mount path %q: it must be absolute", target)
	}
	if strings.ContainsRune(target, 0) {
		return "", fmt.Errorf("invalid mount path %q", target)
	}
	clean := filepath.Clean(target)
	if clean == "/" {
		return "", errors.New("the destination can't be '/'")
	}
	return clean, nil
}

// mountSpec is a --mount while its keys are read.
type mountSpec struct {
	container.Mount
	size, mode string          // of a tmpfs
	kinds      map[string]bool // prefixes of the type-specific keys: bind, volume, tmpfs
	unmet      []string
}

// parseMount reads the value of --mount: key=value fields, separated by commas
// as in CSV. unmet are the fields that have no effect here.
func parseMount(spec string) (m container.Mount, unmet []string, err error) {
	fields, err := csv.NewReader(strings.NewReader(strings.TrimSpace(spec))).Read()
	if err != nil {
		return m, nil, fmt.Errorf("invalid mount %q: %w", spec, csvCause(err))
	}
	s := mountSpec{Mount: container.Mount{Type: container.Volume}, kinds: map[string]bool{}}
	for _, field := range fields {
		if err := s.field(field); err != nil {
			return m, nil, fmt.Errorf("invalid mount %q: %w", spec, err)
		}
	}
	if err := s.finish(); err != nil {
		return m, nil, fmt.Errorf("invalid mount %q: %w", spec, err)
	}
	return s.Mount, s.unmet, nil
}

func csvCause(err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return p.Err
	}
	return errors.New("it is empty")
}

func (s *mountSpec) field(field string) (err error) {
	key, value, hasValue := strings.Cut(field, "=")
	if strings.TrimSpace(key) != key || strings.TrimSpace(value) != value {
		return fmt.Errorf("%q must not have white space around key or value", field)
	}
	if hasValue && value == "" {
		return fmt.Errorf("the value of %s is empty", key)
	}
	key = strings.ToLower(key)
	if !hasValue {
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-create-src":
			value = "true"
		default:
			return fmt.Errorf("invalid field %q: must be a key=value pair", field)
		}
	}
	if kind, _, ok := strings.Cut(key, "-"); ok {
		s.kinds[kind] = true
	}
	switch key {
	case "type":
		s.Type = strings.ToLower(value)
	case "source", "src":
		s.Source = value
	case "target", "dst", "destination":
		s.Target, err = cleanTarget(value)
	case "readonly", "ro":
		s.ReadOnly, err = parseSwitch(key, value)
	case "bind-create-src":
		s.Create, err = parseSwitch(key, value)
	case "volume-nocopy":
		s.NoCopy, err = parseSwitch(key, value)
	case "volume-subpath":
		if s.Subpath = filepath.Clean(value); !filepath.IsLocal(value) {
			return fmt.Errorf("volume-subpath: %q must be a relative path within the volume", value)
		}
	case "volume-label":
		name, text, _ := strings.Cut(value, "=")
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[name] = text
	case "volume-driver":
		err = checkVolumeDriver(value)
	case "tmpfs-size":
		var n int64
		if n, err = parseSize(value); err != nil {
			return fmt.Errorf("tmpfs-size: %w", err)
		}
		s.size = strconv.FormatInt(n, 10)
	case "tmpfs-mode":
		n, parseErr := strconv.ParseUint(value, 8, 32)
		if parseErr != nil || n > 0o7777 {
			return fmt.Errorf("tmpfs-mode: %q is no octal mode", value)
		}
		s.mode = strconv.FormatUint(n, 8)
	case "consistency":
	case "bind-propagation":
		err = s.propagation(strings.ToLower(value))
	case "bind-recursive":
		if value != "enabled" && value != "disabled" && value != "writable" && value != "readonly" {
			return fmt.Errorf("bind-recursive: %q is none of enabled, disabled, writable, readonly", value)
		}
		if value == "disabled" || value == "writable" {
			s.unmet = append(s.unmet, field)
		}
	case "volume-opt":
		return errVolumeOptions
	default:
		return fmt.Errorf("unknown option %q", key)
	}
	return err
}

func (s *mountSpec) propagation(value string) error {
	switch value {
	case "private", "rprivate":
	case "shared", "rshared", "slave", "rslave":
		return &propagationError{value}
	default:
		return fmt.Errorf("bind-propagation: %q is none of private, rprivate, shared, rshared, slave, rslave", value)
	}
	return nil
}

func parseSwitch(key, value string) (bool, error) {
	switch value {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, fmt.Errorf("%s: %q is neither true nor false", key, value)
}

// finish checks what only all fields together can tell.
func (s *mountSpec) finish() (err error) {
	for kind := range s.kinds {
		if kind != s.Type {
			return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", kind, s.Type)
		}
	}
	if s.Target == "" {
		return errors.New("it has no target")
	}
	switch s.Type {
	case container.Bind:
		if s.Source == "" {
			return errors.New("a bind has a source")
		}
		if !filepath.IsAbs(s.Source) && s.Source[0] != '.' {
			return fmt.Errorf("invalid mount path %q: it must be absolute", s.Source)
		}
		s.Source, err = filepath.Abs(s.Source)
	case container.Volume:
		if s.Source != "" && !store.ValidVolumeName(s.Source) {
			return fmt.Errorf("%q is not a volume's name", s.Source)
		}
		s.Name, s.Source = s.Source, ""
	case container.Tmpfs:
		if s.Source != "" {
			return errors.New("a tmpfs has no source")
		}
		s.Options, err = tmpfsOptions(strings.Trim(joinNonEmpty("size=", s.size)+","+joinNonEmpty("mode=", s.mode), ","))
	default:
		return fmt.Errorf("mount type %q is none of bind, volume, tmpfs", s.Type)
	}
	return err
}

func joinNonEmpty(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}
