// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The rules of kernel/sys.c, case by case.
func TestRules(t *testing.T) {
	user := set{1000, 1000, 1000, 1000}
	suid := set{1000, 0, 0, 0}        // after the exec of a set-user-ID program
	mixed := set{1000, 1000, 0, 1000} // which dropped for a while
	for _, tt := range []struct {
		name   string
		start  set
		change func(set) (set, unix.Errno)
		want   set
		errno  unix.Errno
	}{
		{"setuid of root sets all", set{}, func(s set) (set, unix.Errno) { return s.one(5, true) }, set{5, 5, 5, 5}, 0},
		{"setuid of a user to himself", user, func(s set) (set, unix.Errno) { return s.one(1000, false) }, user, 0},
		{"setuid of a user to another", user, func(s set) (set, unix.Errno) { return s.one(0, false) }, user, unix.EPERM},
		{"setuid to the saved one", mixed, func(s set) (set, unix.Errno) { return s.one(0, false) }, set{1000, 0, 0, 0}, 0},
		{"setuid to the effective one alone", set{1, 2, 3, 2}, func(s set) (set, unix.Errno) { return s.one(2, false) }, set{1, 2, 3, 2}, unix.EPERM},
		{"setuid to none", set{}, func(s set) (set, unix.Errno) { return s.one(none, true) }, set{}, unix.EINVAL},

		{"setreuid swaps", suid, func(s set) (set, unix.Errno) { return s.two(0, 1000, true) }, set{0, 1000, 1000, 1000}, 0},
		{"setreuid swaps unprivileged", set{1, 2, 2, 2}, func(s set) (set, unix.Errno) { return s.two(2, 1, false) }, set{2, 1, 1, 1}, 0},
		{"setreuid of effective to the real one keeps saved", set{1, 2, 2, 2}, func(s set) (set, unix.Errno) { return s.two(none, 1, false) }, set{1, 1, 2, 1}, 0},
		{"setreuid of effective sets saved", set{}, func(s set) (set, unix.Errno) { return s.two(none, 7, true) }, set{0, 7, 7, 7}, 0},
		{"setreuid real to the saved one", set{1, 2, 3, 2}, func(s set) (set, unix.Errno) { return s.two(3, none, false) }, set{1, 2, 3, 2}, unix.EPERM},
		{"setreuid effective to the saved one", set{1, 2, 3, 2}, func(s set) (set, unix.Errno) { return s.two(none, 3, false) }, set{1, 3, 3, 3}, 0},
		{"setreuid to root", user, func(s set) (set, unix.Errno) { return s.two(0, 0, false) }, user, unix.EPERM},
		{"setreuid of nothing", user, func(s set) (set, unix.Errno) { return s.two(none, none, false) }, user, 0},

		{"setresuid sets three", set{}, func(s set) (set, unix.Errno) { return s.three(1, 2, 3, true) }, set{1, 2, 3, 2}, 0},
		{"setresuid among his own", set{1, 2, 3, 2}, func(s set) (set, unix.Errno) { return s.three(3, 1, 2, false) }, set{3, 1, 2, 1}, 0},
		{"setresuid to root", user, func(s set) (set, unix.Errno) { return s.three(none, 0, none, false) }, user, unix.EPERM},
		{"setresuid of nothing leaves the file ID", set{1, 2, 3, 4}, func(s set) (set, unix.Errno) { return s.three(none, none, none, false) }, set{1, 2, 3, 4}, 0},
		{"setresuid of one resets the file ID", set{1, 2, 3, 3}, func(s set) (set, unix.Errno) { return s.three(2, none, none, false) }, set{2, 2, 3, 2}, 0},

		{"setfsuid of root", set{}, func(s set) (set, unix.Errno) { return s.onFiles(9, true), 0 }, set{0, 0, 0, 9}, 0},
		{"setfsuid of a user", user, func(s set) (set, unix.Errno) { return s.onFiles(0, false), 0 }, user, 0},
		{"setfsuid to his own", set{1, 2, 3, 2}, func(s set) (set, unix.Errno) { return s.onFiles(3, false), 0 }, set{1, 2, 3, 3}, 0},
		{"setfsuid to none", set{}, func(s set) (set, unix.Errno) { return s.onFiles(none, true), 0 }, set{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, errno := tt.change(tt.start)
			if got != tt.want || errno != tt.errno {
				t.Errorf("got %v, %v; want %v, %v", got, errno, tt.want, tt.errno)
			}
		})
	}
}

func TestAfterExec(t *testing.T) {
	user := User(1000, 1001, []uint32{9, 3})
	for _, tt := range []struct {
		name           string
		start          Credentials
		setuid, setgid uint32
		want           Credentials
	}{
		{"nothing", user, none, none, user},
		{"set-user-ID", user, 0, none, Credentials{1000, 0, 0, 0, 1001, 1001, 1001, 1001, []uint32{3, 9}, false, false}},
		{"set-group-ID", user, none, 5, Credentials{1000, 1000, 1000, 1000, 1001, 5, 5, 5, []uint32{3, 9}, false, false}},
		{"saved follows effective", Credentials{RUID: 1, EUID: 1, SUID: 0, FSUID: 7}, none, none, Credentials{RUID: 1, EUID: 1, SUID: 1, FSUID: 1}},
	} {
		if got := tt.start.afterExec(tt.setuid, tt.setgid); !got.equal(&tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestInterned(t *testing.T) {
	table := &interned{hard: unix.RLIM_INFINITY, number: map[string]uint64{}}
	for _, c := range []Credentials{{}, User(1, 2, nil), User(1, 2, []uint32{3}), User(1, 2, nil)} {
		n, errno := table.numberOf(&c)
		if errno != 0 || !table.at(n).equal(&c) {
			t.Errorf("%v: number %d is %v, %v", c, n, table.at(n), errno)
		}
	}
	if len(table.list) != 2 {
		t.Errorf("%d credentials are kept", len(table.list))
	}
	// However many a program makes up, the table ends.
	for i := range uint32(maxCredentials + 10) {
		c := User(i+10, i, nil)
		n, errno := table.numberOf(&c)
		if errno != 0 && errno != unix.EAGAIN || errno == 0 && !table.at(n).equal(&c) {
			t.Fatal(n, errno)
		}
	}
	if len(table.list) != maxCredentials {
		t.Errorf("%d credentials are kept", len(table.list))
	}
	many := &interned{hard: unix.RLIM_INFINITY, number: map[string]uint64{}}
	groups := make([]uint32, maxGroups)
	for i := range uint32(20) {
		c := User(i+1, 0, groups)
		many.numberOf(&c)
	}
	if many.groups > maxInternedGroups {
		t.Errorf("%d groups are kept", many.groups)
	}
	// A hard limit leaves few numbers, and none means root.
	low := &interned{hard: 1, number: map[string]uint64{}}
	one, two := User(1, 1, nil), User(2, 2, nil)
	if n, errno := low.numberOf(&one); n != 0 || errno != 0 {
		t.Error(n, errno)
	}
	if _, errno := low.numberOf(&two); errno != unix.EAGAIN {
		t.Error(errno)
	}
	if !low.at(1).equal(root) {
		t.Error("the hard limit is not root")
	}
}

func TestKeepCaps(t *testing.T) {
	c := Credentials{keepCaps: true}
	c = c.withUsers(set{5, 5, 5, 5})
	if !c.kept {
		t.Error("capabilities are gone")
	}
	if c = c.afterExec(none, none); c.kept || c.keepCaps {
		t.Error("capabilities outlive execve")
	}
	c = Credentials{keepCaps: true}
	if c = c.withUsers(set{0, 5, 5, 5}); c.kept {
		t.Error("capabilities are kept before anything was lost")
	}
}

func TestIn(t *testing.T) {
	c := User(1, 5, []uint32{30, 10, 20})
	for gid, want := range map[uint32]bool{5: true, 10: true, 30: true, 11: false, 0: false} {
		if c.in(gid) != want {
			t.Errorf("in %d: %v", gid, !want)
		}
	}
}
