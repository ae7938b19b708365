// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// object is what of an ELF file decides which libraries fit it.
type object struct {
	path    string
	class   elf.Class
	machine elf.Machine
	needed  []string
	rpath   []string // directories; only where there is no RUNPATH
	runpath []string
	interp  string
	parents []*object // who loads it, nearest first: their RPATHs count too (ld.so(8))
}

// maxPath is PATH_MAX; maxDynamic bounds a dynamic section and its strings.
const (
	maxPath    = 4096
	maxDynamic = 16 << 20
)

// readObject reads what the kernel and the dynamic linker read: the program
// headers and the dynamic segment. Sections may have been stripped. A static
// program has no dynamic segment and needs nothing.
func readObject(f io.ReaderAt, p string) (*object, error) {
	file, err := elf.NewFile(f)
	if err != nil {
		return nil, &formatError{p, "damaged ELF file: " + err.Error()}
	}
	o := &object{path: p, class: file.Class, machine: file.Machine}
	for _, prog := range file.Progs {
		switch prog.Type {
		case elf.PT_INTERP:
			var name []byte
			if name, err = segment(prog, maxPath); err == nil {
				o.interp = string(bytes.TrimRight(name, "\x00"))
			}
		case elf.PT_DYNAMIC:
			err = o.readDynamic(file, prog)
		}
		if err != nil {
			return nil, &formatError{p, "damaged ELF file: " + err.Error()}
		}
	}
	return o, nil
}

// segment reads what the file has of a segment.
func segment(p *elf.Prog, most uint64) ([]byte, error) {
	if p.Filesz > most {
		return nil, fmt.Errorf("a segment of %d bytes", p.Filesz)
	}
	data := make([]byte, p.Filesz)
	_, err := io.ReadFull(p.Open(), data)
	return data, err
}

// readDynamic reads the needed libraries and the paths to look for them in.
func (o *object) readDynamic(file *elf.File, prog *elf.Prog) error {
	data, err := segment(prog, maxDynamic)
	if err != nil {
		return err
	}
	var needed, rpath, runpath []uint64
	var table, size uint64
	word := 4
	if file.Class == elf.ELFCLASS64 {
		word = 8
	}
	number := func(b []byte) uint64 {
		if word == 8 {
			return file.ByteOrder.Uint64(b)
		}
		return uint64(file.ByteOrder.Uint32(b))
	}
entries:
	for ; len(data) >= 2*word; data = data[2*word:] {
		value := number(data[word:])
		switch elf.DynTag(number(data)) {
		case elf.DT_NULL:
			break entries
		case elf.DT_NEEDED:
			needed = append(needed, value)
		case elf.DT_RPATH:
			rpath = append(rpath, value)
		case elf.DT_RUNPATH:
			runpath = append(runpath, value)
		case elf.DT_STRTAB:
			table = value
		case elf.DT_STRSZ:
			size = value
		}
	}
	names, err := loaded(file, table, size)
	if err != nil {
		return err
	}
	if o.needed, err = stringsAt(names, needed); err != nil {
		return err
	}
	dirs, err := stringsAt(names, runpath)
	if err != nil {
		return err
	}
	o.runpath = o.expand(dirs)
	if len(runpath) > 0 {
		return nil
	}
	dirs, err = stringsAt(names, rpath)
	o.rpath = o.expand(dirs)
	return err
}

// loaded reads size bytes of what is loaded at an address.
func loaded(file *elf.File, address, size uint64) ([]byte, error) {
	if size > maxDynamic {
		return nil, fmt.Errorf("a string table of %d bytes", size)
	}
	for _, p := range file.Progs {
		if p.Type != elf.PT_LOAD || address < p.Vaddr || address-p.Vaddr > p.Filesz || size > p.Filesz-(address-p.Vaddr) {
			continue
		}
		data := make([]byte, size)
		_, err := p.ReadAt(data, int64(address-p.Vaddr))
		return data, err
	}
	if size == 0 {
		return nil, nil
	}
	return nil, errors.New("its string table is not loaded")
}

// stringsAt are the strings at offsets of a string table.
func stringsAt(table []byte, offsets []uint64) ([]string, error) {
	var list []string
	for _, at := range offsets {
		if at >= uint64(len(table)) {
			return nil, errors.New("a name behind its string table")
		}
		s, _, ok := bytes.Cut(table[at:], []byte{0})
		if !ok || len(s) >= maxPath {
			return nil, errors.New("a name without an end")
		}
		list = append(list, string(s))
	}
	return list, nil
}

// expand replaces the tokens of ld.so(8) in path lists and drops what is relative.
func (o *object) expand(lists []string) []string {
	lib := "lib"
	if o.class == elf.ELFCLASS64 {
		lib = "lib64"
	}
	platform := map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64"}[o.machine]
	tokens := strings.NewReplacer("${ORIGIN}", path.Dir(o.path), "$ORIGIN", path.Dir(o.path),
		"${LIB}", lib, "$LIB", lib, "${PLATFORM}", platform, "$PLATFORM", platform)
	var dirs []string
	for _, list := range lists {
		for dir := range strings.SplitSeq(list, ":") {
			if dir = tokens.Replace(dir); path.IsAbs(dir) {
				dirs = append(dirs, path.Clean(dir))
			}
		}
	}
	return dirs
}
