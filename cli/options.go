// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strconv"
)

// option is one flag of a command: the names and the text that Docker gives it,
// and where its value goes.
type option struct {
	name   string // without dashes
	short  string // one letter, or none
	alias  string // another long name, which help does not show
	kind   string // of the value, as help shows it; none for a switch
	usage  string
	bare   string // the value when none is given with "="; none: one must follow
	hidden bool
	value  value
}

// value takes what the user typed after a flag, once for each time it is given.
type value interface {
	Set(string) error
}

// isSwitch reports whether the flag stands alone: --rm, and not --rm true.
func (o *option) isSwitch() bool { return o.kind == "" }

func (o *option) set(s string) error {
	err := o.value.Set(s)
	if err == nil {
		return nil
	}
	name := "--" + o.name
	var refused *refusedError
	if errors.As(err, &refused) {
		return &statusError{status: statusSbx, err: fmt.Errorf("%s: %w", name, err)}
	}
	if o.short != "" {
		name = "-" + o.short + ", " + name
	}
	return &usageError{text: fmt.Sprintf("invalid argument %q for %q flag: %s", s, name, err)}
}

func switchFlag(p *bool, name, short, usage string) option {
	return option{name: name, short: short, usage: usage, value: (*toggle)(p)}
}

func textFlag(p *string, name, short, usage string) option {
	return option{name: name, short: short, kind: "string", usage: usage, value: (*text)(p)}
}

func listFlag(p *[]string, name, short, usage string) option {
	return option{name: name, short: short, kind: "list", usage: usage, value: (*list)(p)}
}

func numberFlag(p *int, name, short, usage string) option {
	return option{name: name, short: short, kind: "int", usage: usage, value: (*number)(p)}
}

// filterFlag collects name=value conditions.
func filterFlag(p *filters) option {
	return option{name: "filter", short: "f", kind: "filter", usage: "Filter output based on conditions provided", value: p}
}

type toggle bool

func (v *toggle) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true or false")
	}
	*v = toggle(b)
	return nil
}

type text string

func (v *text) Set(s string) error {
	*v = text(s)
	return nil
}

type list []string

func (v *list) Set(s string) error {
	*v = append(*v, s)
	return nil
}

type number int

func (v *number) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return errors.New("want a number")
	}
	*v = number(n)
	return nil
}

// given is a text that knows whether it was given: an empty one is not none.
type given struct {
	text string
	ok   bool
}

func (v *given) Set(s string) error {
	*v = given{s, true}
	return nil
}
