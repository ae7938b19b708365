// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// filters are the conditions of --filter. Several of one name are alternatives,
// but all of several labels must hold.
type filters map[string][]string

// Set takes name=value.
func (f *filters) Set(s string) error {
	name, value, ok := strings.Cut(s, "=") // of "label!=x" the name is "label!"
	name = strings.ToLower(strings.TrimSpace(name))
	if !ok || name == "" {
		return errors.New("want NAME=VALUE")
	}
	if *f == nil {
		*f = filters{}
	}
	(*f)[name] = append((*f)[name], strings.TrimSpace(value))
	return nil
}

// check refuses names that the command does not know.
func (f filters) check(known ...string) error {
	for name := range f {
		if !slices.Contains(known, name) {
			return &usageError{text: fmt.Sprintf("invalid filter %q", name), near: nearest(name, known), hint: "there are " + strings.Join(known, ", ")}
		}
	}
	return nil
}

// any reports whether one of the values of a name satisfies ok, or there are none.
func (f filters) any(name string, ok func(value string) bool) bool {
	return len(f[name]) == 0 || slices.ContainsFunc(f[name], ok)
}

// labels reports whether all conditions on labels hold: NAME, or NAME=VALUE.
func (f filters) labels(labels map[string]string) bool {
	for _, want := range f["label"] {
		name, value, hasValue := strings.Cut(want, "=")
		got, ok := labels[name]
		if !ok || (hasValue && got != value) {
			return false
		}
	}
	return true
}

// wantsTrue reads a condition that is true or false; without one, otherwise holds.
func (f filters) wantsTrue(name string) (wanted, given bool, err error) {
	values := f[name]
	if len(values) == 0 {
		return false, false, nil
	}
	switch strings.ToLower(values[len(values)-1]) {
	case "true", "1":
		return true, true, nil
	case "false", "0":
		return false, true, nil
	}
	return false, true, &usageError{text: fmt.Sprintf("invalid filter '%s=%s'", name, values[len(values)-1]), hint: "want true or false"}
}

// anyUnwanted reports whether one of the conditions on labels holds that are not to.
func (f filters) anyUnwanted(labels map[string]string) bool {
	return slices.ContainsFunc(f["label!"], func(want string) bool { return filters{"label": {want}}.labels(labels) })
}
