// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A hostile layer is made of four choices: what stands where its entry goes, how
// the entry's path gets there, what kind of entry it is, and what comes after. All
// of them aim at a decoy beside everything that sbx may touch.

// state makes what stands at "anc" before the entry comes.
var ancestorStates = []func(w *hostileTar, decoy string){
	func(*hostileTar, string) {},
	func(w *hostileTar, _ string) { w.add(tar.TypeDir, "anc", "", 0o755) },
	func(w *hostileTar, decoy string) { w.add(tar.TypeSymlink, "anc", decoy, 0o777) },
	func(w *hostileTar, decoy string) { w.add(tar.TypeSymlink, "anc", climb(decoy), 0o777) },
	func(w *hostileTar, decoy string) {
		w.add(tar.TypeSymlink, "one", decoy, 0o777)
		w.add(tar.TypeSymlink, "anc", "one", 0o777)
	},
	func(w *hostileTar, decoy string) {
		w.add(tar.TypeDir, "anc", "", 0o755)
		w.add(tar.TypeSymlink, "anc", decoy, 0o777)
	},
	func(w *hostileTar, decoy string) {
		w.add(tar.TypeSymlink, "one", decoy, 0o777)
		w.add(tar.TypeLink, "anc", "one", 0o777)
	},
}

// forms are the paths by which an entry may reach the decoy.
var pathForms = []func(decoy string) string{
	func(string) string { return "anc/" + planted },
	func(string) string { return "anc/secret" },
	func(string) string { return "anc" },
	func(string) string { return "anc/" },
	func(string) string { return "./anc/../anc/" + planted },
	func(string) string { return "anc/sub/../" + planted },
	func(decoy string) string { return climb(decoy) + "/" + planted },
	func(decoy string) string { return "a/b/" + climb(decoy) + "/secret" },
	func(decoy string) string { return decoy + "/" + planted },
	func(decoy string) string { return "//" + decoy + "/secret" },
	func(string) string { return "." },
	func(string) string { return "../" + planted },
	func(string) string { return "anc/.wh.secret" },
	func(string) string { return "anc/.wh..wh..opq" },
}

var entryKinds = []struct {
	kind byte
	link func(decoy string) string
}{
	{tar.TypeReg, nil}, {tar.TypeDir, nil}, {tar.TypeFifo, nil}, {tar.TypeChar, nil}, {tar.TypeBlock, nil},
	{tar.TypeSymlink, func(decoy string) string { return decoy }},
	{tar.TypeLink, func(decoy string) string { return decoy + "/secret" }},
	{tar.TypeLink, func(decoy string) string { return climb(decoy) + "/secret" }},
	{tar.TypeLink, func(string) string { return "anc" }},
}

var afterwards = []func(w *hostileTar, name string){
	func(*hostileTar, string) {},
	func(w *hostileTar, name string) { w.add(tar.TypeReg, name+"/"+planted, "", 0o644) },
	func(w *hostileTar, name string) { w.add(tar.TypeDir, name, "", 0o777) },
	func(w *hostileTar, name string) { w.add(tar.TypeReg, name, "", 0o4777) },
	func(w *hostileTar, name string) { w.add(tar.TypeLink, "stolen", name, 0o777) },
	func(w *hostileTar, _ string) { w.add(tar.TypeReg, "anc/secret", "", 0o666) },
}

const planted = "planted"

// climb is a path from any depth of directories to another.
func climb(path string) string { return strings.Repeat("../", 40) + path[1:] }

// hostileTar writes entries as they are asked for, whatever their names.
type hostileTar struct {
	buffer bytes.Buffer
	w      *tar.Writer
}

func (w *hostileTar) add(kind byte, name, link string, mode int64) {
	h := &tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: mode, Uid: 7, Gid: 8, ModTime: stamp, Format: tar.FormatPAX, Devmajor: 1, Devminor: 3}
	if kind == tar.TypeReg {
		h.Size = int64(len(planted))
		h.PAXRecords = map[string]string{"SCHILY.xattr.user." + planted: "1"}
	}
	// What the writer refuses is no archive; the rest of it still is one.
	if w.w.WriteHeader(h) == nil && kind == tar.TypeReg {
		_, _ = w.w.Write([]byte(planted))
	}
}

// layerOfNumber is the layer of a number. The numbers are spread so that any run of
// them has every choice.
func layerOfNumber(number int, decoy string) []byte {
	total := len(ancestorStates) * len(pathForms) * len(entryKinds) * len(afterwards)
	n := number * 1009 % total // a prime that does not divide it
	pick := func(of int) int {
		chosen := n % of
		n /= of
		return chosen
	}
	w := &hostileTar{}
	w.w = tar.NewWriter(&w.buffer)
	ancestorStates[pick(len(ancestorStates))](w, decoy)
	name := pathForms[pick(len(pathForms))](decoy)
	entry := entryKinds[pick(len(entryKinds))]
	link := ""
	if entry.link != nil {
		link = entry.link(decoy)
	}
	w.add(entry.kind, name, link, 0o6777)
	afterwards[pick(len(afterwards))](w, name)
	_ = w.w.Close()
	return w.buffer.Bytes()
}

// hostileLayers is how many layers each entry point gets: SBX_TEST_HARDEN=1000 is
// what `make harden` asks for.
func hostileLayers() int {
	if n, err := strconv.Atoi(os.Getenv("SBX_TEST_HARDEN")); err == nil {
		return n
	}
	return hostileInCI
}

const hostileInCI = 200

const (
	hostileTime   = time.Minute
	hostileMemory = 256 << 20
)

// TestHostile brings hostile layers in by every way that there is. Nothing beside
// the store changes, nothing takes long or much, and nothing panics: U02, C03, C06,
// B07.
func TestHostile(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			for _, point := range entryPoints {
				t.Run(point.name, func(t *testing.T) {
					t.Parallel()
					p := newPlayground(t, rung)
					decoy := newDecoy(t)
					p.sbx("run", "-d", "--name", "one", "--network", "none", p.image, "probe", "sleep")
					defer p.sbx("rm", "-f", "one")
					before, taken, reached := decoy.look(t), 0, 0
					for i := range hostileLayers() {
						data := layerOfNumber(i, decoy.dir)
						cmd := point.command(t, p, decoy.dir, data)
						if runHostile(t, fmt.Sprintf("%s %d", point.name, i), cmd) {
							taken++
							reached++
						} else if point.left != nil && point.left(p, data) {
							reached++
						}
						if diff := cmp.Diff(before, decoy.look(t)); diff != "" {
							t.Fatalf("layer %d changed what is outside:\n%s", i, diff)
						}
					}
					t.Logf("%d of %d layers reached the filesystem, %d were taken whole", reached, hostileLayers(), taken)
					if reached < hostileLayers()/2 {
						t.Error("most layers were refused before anything was unpacked")
					}
				})
			}
		})
	}
}

// entryPoints are the commands that unpack what others made.
var entryPoints = []struct {
	name    string
	command func(t *testing.T, p *playground, decoy string, layer []byte) *exec.Cmd
	// left reports whether a command that failed had begun to write, where that is left.
	left func(p *playground, layer []byte) bool
}{
	{"pull", func(t *testing.T, p *playground, _ string, layer []byte) *exec.Cmd {
		return p.command("pull", "-q", hostileImage(t, layer))
	}, nil},
	{"load", func(t *testing.T, p *playground, _ string, layer []byte) *exec.Cmd {
		return p.command("load", "-q", "-i", hostileImage(t, layer))
	}, nil},
	{"import", func(_ *testing.T, p *playground, _ string, layer []byte) *exec.Cmd {
		cmd := p.command("import", "-")
		cmd.Stdin = bytes.NewReader(layer)
		return cmd
	}, nil},
	{"cp", func(_ *testing.T, p *playground, decoy string, layer []byte) *exec.Cmd {
		lure := []string{"exec", "one", "probe", "lure", decoy}
		if expectsLink(layer) {
			lure = append(lure, "anc")
		}
		p.sbx(lure...)
		cmd := p.command("cp", "-q", "-", "one:/into")
		cmd.Stdin = bytes.NewReader(layer)
		return cmd
	}, func(p *playground, layer []byte) bool {
		names := strings.Fields(p.sbx("exec", "one", "probe", "ls", "/into"))
		return len(names) > 1 || len(names) == 1 && !expectsLink(layer)
	}},
	{"add", func(t *testing.T, p *playground, _ string, layer []byte) *exec.Cmd {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"layer.tar": layer, "Dockerfile": []byte("FROM scratch\nADD layer.tar /\n")} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return p.command("build", "-q", dir)
	}, nil},
}

// expectsLink reports whether a layer goes through something that it does not make
// itself: a hostile container has a link there.
func expectsLink(layer []byte) bool {
	h, err := tar.NewReader(bytes.NewReader(layer)).Next()
	return err == nil && strings.HasPrefix(h.Name, "anc/")
}

// hostileImage is a layout with a layer that is any bytes.
func hostileImage(t *testing.T, layer []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "img")
	if err := (layout{dir}).write(recipe{raw: [][]byte{layer}, arch: runtime.GOARCH, compression: "gzip", name: "hostile"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runHostile runs a command on what is hostile, and reports whether it took it.
func runHostile(t *testing.T, what string, cmd *exec.Cmd) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hostileTime)
	defer cancel()
	limited := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	limited.Env, limited.Stdin = cmd.Env, cmd.Stdin
	out, err := limited.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%s: not done within %v", what, hostileTime)
	}
	if bytes.Contains(out, []byte("panic:")) || bytes.Contains(out, []byte("goroutine ")) {
		t.Errorf("%s: %s", what, out)
	}
	if usage, ok := limited.ProcessState.SysUsage().(*syscall.Rusage); ok && usage.Maxrss<<10 > hostileMemory {
		t.Errorf("%s: took %d MiB", what, usage.Maxrss>>10)
	}
	return err == nil
}
