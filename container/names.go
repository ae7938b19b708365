// SPDX-License-Identifier: Apache-2.0

package container

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sbx/store"
)

// namesDir holds a symbolic link for each name, to its container's ID: symlink(2)
// makes a name and takes it in one step, for any number of processes.
const namesDir = "names"

// NameInUseError says that another container has the name.
type NameInUseError struct{ Name, ID string }

func (e *NameInUseError) Error() string {
	return fmt.Sprintf("the name %q is taken by container %s", e.Name, e.ID[:shortID])
}

// Hint says how to free the name.
func (e *NameInUseError) Hint() string {
	return "remove it (sbx rm " + e.Name + ") or choose another name"
}

// named returns the ID of the container that has a name.
func (h *Home) named(name string) (string, error) {
	if !validName(name) {
		return "", fs.ErrNotExist
	}
	id, err := os.Readlink(filepath.Join(h.dir, namesDir, name))
	if err == nil && !isID(id) {
		err = fs.ErrNotExist
	}
	return id, err
}

// takeName gives a name to the container id. A name whose container is gone is free.
func (h *Home) takeName(name, id string) error {
	if !validName(name) {
		return fmt.Errorf("name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed, two characters at least", name)
	}
	link := filepath.Join(h.dir, namesDir, name)
	for {
		err := os.Symlink(id, link)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		owner, err := os.Readlink(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if h.isOwner(owner) {
			return &NameInUseError{name, owner}
		}
		if err := h.clearName(link, owner, id); err != nil {
			return err
		}
	}
}

// isOwner reports whether a container is there, or on its way. It may arrive
// between two looks.
func (h *Home) isOwner(id string) bool {
	isThere := func() bool {
		_, err := os.Lstat(filepath.Join(h.dir, id, "config.json"))
		return err == nil
	}
	return isThere() || h.beingMade(id) || isThere()
}

// clearName frees a name whose owner is gone. The stale link is taken away under
// a name of our own, made of id, first: of several that find it, one wins, and
// none removes a fresh one.
func (h *Home) clearName(link, owner, id string) error {
	mine := link + "." + id[:shortID] + ".stale"
	if err := os.Rename(link, mine); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if now, err := os.Readlink(mine); err == nil && now != owner {
		// Between the look and the rename another had taken it: give it back.
		if err := unix.Link(mine, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	os.Remove(mine)
	return nil
}

// clearNames frees the names that were taken by who died before there was a
// container.
func (h *Home) clearNames() {
	dir := filepath.Join(h.dir, namesDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		owner, err := os.Readlink(link)
		if err == nil && !h.isOwner(owner) {
			_ = h.clearName(link, owner, newID())
		}
	}
}

// beingMade reports whether a process is making the container at this moment.
func (h *Home) beingMade(id string) bool {
	if !isID(id) {
		return false
	}
	fd, err := lockDir(filepath.Join(h.dir, makingPrefix+id), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	unix.Close(fd)
	return false
}

// dropName frees the name, if id has it.
func (h *Home) dropName(name, id string) error {
	owner, err := h.named(name)
	if err != nil || owner != id {
		return nil
	}
	return os.Remove(filepath.Join(h.dir, namesDir, name))
}

// validName follows Docker's grammar for container names, which is that of
// volumes but for the length.
func validName(name string) bool { return len(name) <= 128 && store.ValidVolumeName(name) }

func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// randomName makes a name that people can say: a quality and an animal of our
// own lists.
func randomName() string {
	var b [4]byte
	rand.Read(b[:])
	n := binary.NativeEndian.Uint32(b[:])
	return qualities[n%uint32(len(qualities))] + "_" + animals[(n/256)%uint32(len(animals))]
}

var qualities = [...]string{
	"able", "agile", "airy", "amber", "ample", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery", "clear", "clever",
	"cosy", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "easy", "exact", "fair", "fancy", "fleet", "fond", "frank", "free",
	"fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "light", "lively", "loyal", "lucid",
	"lucky", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "plucky", "polite", "prompt", "proud", "quick", "quiet", "rapid",
	"ready", "robust", "rosy", "royal", "shiny", "silent", "smart", "snug", "solid", "spry", "steady", "stout", "sturdy", "subtle", "sunny", "sure",
	"swift", "tidy", "tough", "true", "trusty", "upbeat", "vivid", "warm", "wary", "wise", "witty", "young", "zesty",
}

var animals = [...]string{
	"adder", "alpaca", "ant", "auk", "badger", "bat", "bear", "beaver", "bee", "bison", "boar", "bunting", "camel", "cat", "civet", "cobra",
	"cod", "condor", "coot", "crab", "crane", "cricket", "crow", "curlew", "deer", "dingo", "dipper", "dove", "duck", "eagle", "eel", "egret",
	"elk", "emu", "falcon", "ferret", "finch", "fox", "frog", "gannet", "gecko", "gnu", "goat", "goose", "grouse", "gull", "hare", "hawk",
	"heron", "hornet", "horse", "ibex", "ibis", "jackdaw", "jay", "kestrel", "kite", "kiwi", "koala", "lark", "lemur", "linnet", "lion", "llama",
	"lynx", "magpie", "mantis", "marten", "mole", "moose", "moth", "mouse", "newt", "ocelot", "okapi", "orca", "osprey", "otter", "owl", "ox",
	"panda", "perch", "pike", "plover", "pony", "puffin", "puma", "quail", "rabbit", "raven", "robin", "rook", "salmon", "seal", "shark", "shrew",
	"skua", "snipe", "sparrow", "squid", "stoat", "stork", "swan", "swift", "tapir", "teal", "tern", "tiger", "toad", "trout", "vole", "walrus",
	"wasp", "weasel", "whale", "wolf", "wombat", "wren", "yak", "zebra",
}
