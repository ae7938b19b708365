// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// program takes a program, and what the kernel and the dynamic linker need to
// start it: an ELF file's interpreter and libraries, a script's interpreter.
func (c *collector) program(p, why string, chain []string) error {
	real, isNew, err := c.take(p, why)
	if err != nil || !isNew {
		return err
	}
	f, err := os.Open(c.tree.host(real))
	if err != nil {
		return withoutHost(err, real)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return &formatError{real, "not a regular file"}
	}
	head := make([]byte, 256) // what the kernel reads of a script's first line (BINPRM_BUF_SIZE)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", real, err)
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return c.elf(f, real)
	case bytes.HasPrefix(head, []byte("#!")):
		return c.script(head, real, chain)
	}
	return &formatError{real, "not a program: it begins neither as an ELF file nor with #!"}
}

// formatError says that a file cannot be started on this machine.
type formatError struct{ path, cause string }

func (e *formatError) Error() string { return e.path + ": " + e.cause }

// script takes the interpreter of a script. What env(1) is asked for is looked
// up as env does.
func (c *collector) script(head []byte, real string, chain []string) error {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 || !path.IsAbs(words[0]) {
		return &formatError{real, fmt.Sprintf("its first line names no interpreter: %q", "#!"+string(line))}
	}
	if slices.Contains(chain, real) || len(chain) >= maxInterpreters {
		return &formatError{real, "its interpreters lead in a circle"}
	}
	chain = append(slices.Clone(chain), real)
	if err := c.program(words[0], "interpreter of "+real, chain); err != nil {
		return err
	}
	if path.Base(words[0]) != "env" {
		return nil
	}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, "-") || strings.Contains(w, "=") {
			continue
		}
		p, err := c.lookUp(w)
		if err != nil {
			return fmt.Errorf("interpreter %s of %s: %w", w, real, err)
		}
		return c.program(p, "interpreter of "+real+", by env", chain)
	}
	return nil
}

// maxInterpreters is how many scripts may interpret each other (execve(2)).
const maxInterpreters = 5

func (c *collector) elf(f io.ReaderAt, real string) error {
	o, err := readObject(f, real)
	if err != nil {
		return err
	}
	if o.machine != machine() {
		return &formatError{real, fmt.Sprintf("built for %s, and this machine is %s", o.machine, machine())}
	}
	if o.interp != "" {
		if _, _, err := c.take(o.interp, "interpreter of "+real); err != nil {
			return fmt.Errorf("interpreter of %s: %w", real, err)
		}
	}
	return c.libraries(o)
}

// machine is the ELF machine of this binary, and so of this machine.
func machine() elf.Machine {
	switch runtime.GOARCH {
	case "arm64":
		return elf.EM_AARCH64
	default:
		return elf.EM_X86_64
	}
}

// libraries takes what o needs, and what that needs, breadth first as the
// dynamic linker loads them.
func (c *collector) libraries(o *object) error {
	queue := []*object{o}
	for len(queue) > 0 {
		o, queue = queue[0], queue[1:]
		for _, name := range o.needed {
			p, how, err := c.findLibrary(name, o)
			if err != nil {
				return err
			}
			real, isNew, err := c.take(p, "needed by "+o.path+how)
			if err != nil {
				return err
			}
			if !isNew {
				continue
			}
			lib, err := c.openObject(real)
			if err != nil {
				return err
			}
			lib.parents = append([]*object{o}, o.parents...)
			queue = append(queue, lib)
		}
	}
	return nil
}

func (c *collector) openObject(p string) (*object, error) {
	f, err := os.Open(c.tree.host(p))
	if err != nil {
		return nil, withoutHost(err, p)
	}
	defer f.Close()
	return readObject(f, p)
}

// findLibrary finds a library as the dynamic linker does for o (ld.so(8)): RPATH
// of o and of who loads it unless o has a RUNPATH, RUNPATH, the cache, the
// standard directories. One for another machine is passed over.
func (c *collector) findLibrary(name string, o *object) (found, how string, err error) {
	if strings.Contains(name, "/") {
		return name, "", nil
	}
	var places []place
	if len(o.runpath) == 0 {
		for _, owner := range append([]*object{o}, o.parents...) {
			places = append(places, placesOf(owner.rpath, ", by RPATH")...)
		}
	}
	places = append(places, placesOf(o.runpath, ", by RUNPATH")...)
	for _, p := range c.cache.find(name) {
		places = append(places, place{path.Dir(p), ", by ld.so.cache"})
	}
	places = append(places, placesOf(c.dirs, "")...)
	for _, at := range places {
		p := path.Join(at.dir, name)
		if c.fits(p, o) {
			return p, at.how, nil
		}
	}
	return "", "", &libraryError{name: name, object: o}
}

type place struct{ dir, how string }

func placesOf(dirs []string, how string) []place {
	var list []place
	for _, d := range dirs {
		list = append(list, place{d, how})
	}
	return list
}

func (c *collector) fits(p string, o *object) bool {
	f, err := os.Open(c.tree.host(p))
	if err != nil {
		return false
	}
	defer f.Close()
	var head [20]byte // e_ident, e_type, e_machine (elf(5))
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:4]) != elf.ELFMAG {
		return false
	}
	return elf.Class(head[elf.EI_CLASS]) == o.class && elf.Machine(uint16(head[18])|uint16(head[19])<<8) == o.machine
}

// libraryError says that a library is not on this machine.
type libraryError struct {
	name   string
	object *object
}

func (e *libraryError) Error() string {
	text := "no library " + e.name + ": needed by " + e.object.path
	for _, p := range e.object.parents {
		text += ", needed by " + p.path
	}
	return text
}

// Hint says what that means.
func (e *libraryError) Hint() string {
	return "the program does not start on this machine either; install the package that has " + e.name
}

// readLinkerFiles reads where the dynamic linkers of this machine look: glibc's
// cache and standard directories, and musl's path file.
func (c *collector) readLinkerFiles() error {
	data, err := os.ReadFile(c.tree.host("/etc/ld.so.cache"))
	if err == nil {
		if c.cache, err = parseLinkerCache(data); err != nil {
			return err
		}
	}
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[machine()]
	c.dirs = []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	files, _ := filepath.Glob(c.tree.host("/etc/ld-musl-*.path"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			for dir := range strings.SplitSeq(lines.Text(), ":") {
				if path.IsAbs(dir) {
					c.dirs = append(c.dirs, path.Clean(dir))
				}
			}
		}
		f.Close()
	}
	c.dirs = append(c.dirs, "/usr/local/lib") // musl's default
	return nil
}
