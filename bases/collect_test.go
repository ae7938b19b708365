// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// elfSpec is an ELF file that only has what the dynamic linker reads.
type elfSpec struct {
	machine         elf.Machine
	interp          string
	needed          []string
	rpath, runpath  string
	dynamic, broken bool
}

// bytes lays the file out: header, program headers, interpreter, strings, dynamic.
func (e elfSpec) bytes() []byte {
	const base, header, entry = 0x400000, 64, 56
	if e.machine == 0 {
		e.machine = machine()
	}
	table := []byte{0}
	name := func(s string) uint64 {
		at := len(table)
		table = append(append(table, s...), 0)
		return uint64(at)
	}
	var dynamic []uint64
	for _, n := range e.needed {
		dynamic = append(dynamic, uint64(elf.DT_NEEDED), name(n))
	}
	if e.rpath != "" {
		dynamic = append(dynamic, uint64(elf.DT_RPATH), name(e.rpath))
	}
	if e.runpath != "" {
		dynamic = append(dynamic, uint64(elf.DT_RUNPATH), name(e.runpath))
	}
	interp := append([]byte(e.interp), 0)
	strings := uint64(header + 3*entry + len(interp))
	size := uint64(len(table))
	if e.broken {
		size = 1
	}
	dynamic = append(dynamic, uint64(elf.DT_STRTAB), base+strings, uint64(elf.DT_STRSZ), size, uint64(elf.DT_NULL), 0)
	at := strings + uint64(len(table))
	end := at + uint64(8*len(dynamic))

	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(e.machine), Version: 1, Phoff: header, Ehsize: header, Phentsize: entry, Phnum: 3, Shentsize: 64,
	})
	put(elf.Prog64{Type: uint32(elf.PT_LOAD), Vaddr: base, Filesz: end, Memsz: end})
	kind := elf.PT_NULL
	if e.interp != "" {
		kind = elf.PT_INTERP
	}
	put(elf.Prog64{Type: uint32(kind), Off: header + 3*entry, Filesz: uint64(len(interp))})
	kind = elf.PT_NULL
	if len(e.needed) > 0 || e.dynamic {
		kind = elf.PT_DYNAMIC
	}
	put(elf.Prog64{Type: uint32(kind), Off: at, Vaddr: base + at, Filesz: end - at})
	b.Write(interp)
	b.Write(table)
	put(dynamic)
	return b.Bytes()
}

// machineTree makes a root directory: "-> target" is a link, "/" at the end a
// directory, anything else a program.
func machineTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, at)
		} else {
			err = os.WriteFile(at, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const testLinker = "/lib64/ld.so"

func library(needed ...string) string { return string(elfSpec{needed: needed, dynamic: true}.bytes()) }

func TestCollect(t *testing.T) {
	other := elf.EM_AARCH64
	if machine() == other {
		other = elf.EM_X86_64
	}
	root := machineTree(t, map[string]string{
		"bin": "-> usr/bin", "lib64": "-> usr/lib64", "usr/lib64/ld.so": library(),
		"usr/bin/tool":       string(elfSpec{interp: testLinker, needed: []string{"liba.so"}}.bytes()),
		"usr/bin/static":     string(elfSpec{}.bytes()),
		"usr/bin/bash":       string(elfSpec{interp: testLinker, needed: []string{"libc.so"}}.bytes()),
		"usr/bin/script":     "#!/bin/bash -e\n",
		"usr/bin/byenv":      "#!/usr/bin/env -S A=1 bash -x\n",
		"usr/bin/env":        string(elfSpec{}.bytes()),
		"usr/bin/loop":       "#!/bin/loop\n",
		"usr/bin/text":       "hello\n",
		"usr/bin/foreign":    string(elfSpec{machine: other}.bytes()),
		"usr/bin/damaged":    string(elfSpec{needed: []string{"libc.so"}, broken: true}.bytes()),
		"usr/bin/lacking":    string(elfSpec{interp: testLinker, needed: []string{"libmid.so"}}.bytes()),
		"usr/bin/rpathed":    string(elfSpec{needed: []string{"libr.so"}, rpath: "$ORIGIN/../r"}.bytes()),
		"usr/bin/runpathed":  string(elfSpec{needed: []string{"libr.so", "libc.so"}, rpath: "/nowhere", runpath: "/relative/..:${ORIGIN}/../run"}.bytes()),
		"usr/r/libr.so":      string(elfSpec{needed: []string{"libinner.so"}, dynamic: true}.bytes()),
		"usr/r/libinner.so":  library(),
		"usr/run/libr.so":    library(),
		"usr/lib/liba.so":    "-> liba.so.1",
		"usr/lib/liba.so.1":  library("libc.so", "liba.so"),
		"usr/lib64/libc.so":  library(),
		"usr/lib/libc.so":    string(elfSpec{machine: other}.bytes()),
		"lib/libmid.so":      library("libgone.so"),
		"opt/data/a":         "x",
		"opt/data/sub/b":     "y",
		"opt/data/link":      "-> sub/b",
		"usr/bin/linkcircle": "-> linkcircle",
	})
	for _, test := range []struct {
		programs, files []string
		want            string // paths taken, or what the error says
		command         string
	}{
		{programs: []string{"static"}, want: "/usr/bin/static", command: "/usr/bin/static"},
		{programs: []string{"tool"}, want: "/usr/bin/tool /usr/lib64/ld.so /usr/lib/liba.so.1 /usr/lib64/libc.so", command: "/usr/bin/tool"},
		{programs: []string{"tool", "/bin/bash"}, want: "/usr/bin/tool /usr/lib64/ld.so /usr/lib/liba.so.1 /usr/lib64/libc.so /usr/bin/bash", command: "/bin/bash"},
		{programs: []string{"script"}, want: "/usr/bin/script /usr/bin/bash /usr/lib64/ld.so /usr/lib64/libc.so"},
		{programs: []string{"byenv"}, want: "/usr/bin/byenv /usr/bin/env /usr/bin/bash /usr/lib64/ld.so /usr/lib64/libc.so"},
		{programs: []string{"rpathed"}, want: "/usr/bin/rpathed /usr/r/libr.so /usr/r/libinner.so"},
		{programs: []string{"runpathed"}, want: "/usr/bin/runpathed /usr/run/libr.so /usr/lib64/libc.so"},
		{files: []string{"/opt/data"}, want: "/opt/data/a /opt/data/sub/b"},
		{programs: []string{"gone"}, want: "collect gone: no such program in PATH"},
		{programs: []string{"/bin/gone"}, want: "collect /bin/gone: open /usr/bin/gone: no such file or directory"},
		{programs: []string{"text"}, want: "collect text: /usr/bin/text: not a program: it begins neither as an ELF file nor with #!"},
		{programs: []string{"/bin"}, want: "collect /bin: /usr/bin: not a regular file"},
		{programs: []string{"damaged"}, want: "collect damaged: /usr/bin/damaged: damaged ELF file: a name behind its string table"},
		{programs: []string{"lacking"}, want: "collect lacking: no library libgone.so: needed by /lib/libmid.so, needed by /usr/bin/lacking"},
		{programs: []string{"/bin/linkcircle"}, want: "collect /bin/linkcircle: open /bin/linkcircle: too many symbolic links"},
	} {
		name := strings.Join(append(test.programs, test.files...), " ")
		c, err := collect(t.Context(), root, Request{Programs: test.programs, Files: test.files, Path: "/usr/local/bin:usr/bin:/usr/bin"})
		var got string
		if err != nil {
			got = err.Error()
		} else {
			var list []string
			for _, taken := range c.Taken {
				list = append(list, taken.Path)
			}
			got = strings.Join(list, " ")
			if test.command != "" && c.Command[0] != test.command {
				t.Errorf("%s: command %q, want %q", name, c.Command, test.command)
			}
		}
		if got != test.want {
			t.Errorf("%s:\n  %s\nwant\n  %s", name, got, test.want)
		}
	}
	_, err := collect(t.Context(), root, Request{Programs: []string{"foreign"}, Path: "/usr/bin"})
	if err == nil || !strings.Contains(err.Error(), "built for "+other.String()) {
		t.Errorf("a program for another machine: %v", err)
	}
	if _, err := collect(t.Context(), root, Request{Programs: []string{"loop"}, Path: "/usr/bin"}); err != nil {
		t.Errorf("a script that interprets itself: %v", err) // it is taken once; running it is its own affair
	}
}

// The tar has every link and directory on the way, once, owned by root, and is
// the same whenever it is written.
func TestCollectTar(t *testing.T) {
	root := machineTree(t, map[string]string{
		"bin": "-> usr/bin", "sbin": "-> usr/sbin", "usr/sbin/x": "", "usr/bin/tool": string(elfSpec{}.bytes()), "usr/bin/alias": "-> tool",
	})
	c, err := collect(t.Context(), root, Request{Programs: []string{"/usr/bin/alias"}})
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	latest := time.Unix(1000, 0)
	if date := c.Date(latest); !date.Equal(latest) {
		t.Errorf("date %v", date)
	}
	if date := c.Date(time.Time{}); time.Since(date) > time.Hour {
		t.Errorf("date %v, want that of the newest file", date)
	}
	if err := errors.Join(c.WriteTar(&first, latest), c.WriteTar(&second, latest)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two tars of one collection differ")
	}
	var got []string
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.ModTime.After(latest) {
			t.Errorf("%s: owner %d:%d %q, time %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
		got = append(got, strings.TrimSuffix(h.Name+" "+h.Linkname, " "))
	}
	want := []string{"dev/", "proc/", "sys/", "tmp/", "bin usr/bin", "usr/", "usr/bin/", "usr/bin/alias tool", "usr/bin/tool"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is found for the programs of this machine is what its dynamic linker says.
func TestCollectLikeLdd(t *testing.T) {
	for _, program := range []string{"bash", "ls", "tar", "git"} {
		path, err := exec.LookPath(program)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "ldd", path).Output()
		if err != nil {
			continue // no ldd on this machine, or a static program
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			for word := range strings.FieldsSeq(line) {
				if !strings.HasPrefix(word, "/") {
					continue
				}
				if real, err := filepath.EvalSymlinks(word); err == nil {
					want = append(want, real)
				}
			}
		}
		c, err := Collect(t.Context(), Request{Programs: []string{path}})
		if err != nil {
			t.Errorf("%s: %v", program, err)
			continue
		}
		var got []string
		for _, taken := range c.Taken[1:] {
			got = append(got, taken.Path)
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
			t.Errorf("%s: ldd has -, we have +:\n%s", program, diff)
		}
	}
}

func FuzzLinkerCache(f *testing.F) {
	if data, err := os.ReadFile("/etc/ld.so.cache"); err == nil && len(data) < 1<<20 {
		f.Add(data)
	}
	f.Add(append(append([]byte{}, oldCacheMagic...), 0, 0, 0, 0))
	f.Add(append(append([]byte{}, newCacheMagic...), make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		cache, err := parseLinkerCache(data)
		if err != nil && cache != nil {
			t.Error("an error and a cache")
		}
	})
}

func FuzzObject(f *testing.F) {
	f.Add(elfSpec{interp: testLinker, needed: []string{"libc.so"}, runpath: "$ORIGIN"}.bytes())
	f.Add(elfSpec{needed: []string{"libc.so"}, broken: true}.bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := readObject(bytes.NewReader(data), "/x")
		if err == nil && o.path != "/x" {
			t.Error("an object without its path")
		}
	})
}
