// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// probeHostile calls what is trapped with random arguments, from two threads that
// change the memory and unmap it meanwhile.
func probeHostile(args []string) error {
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := first(enter("/hostile"), touch("f"), os.Symlink("f", "l"), os.Mkdir("d", 0o755)); err != nil {
		return err
	}
	page := os.Getpagesize()
	// What is written to the end of it must not go on into memory of the runtime.
	mem, err := unix.Mmap(-1, 0, 64*page, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if mem = mem[:4*page]; unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE) != nil {
		return errors.New("mprotect")
	}
	base := uintptr(unsafe.Pointer(&mem[0]))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the one who pulls the rug
		r := rand.New(rand.NewPCG(seed, 1))
		names := []string{"f\x00", "/hostile/l\x00", "d/../f\x00", "/proc/self/fd/1\x00", "../../../x\x00", "/dev/stdin\x00", "user.containers.override_stat\x00", ""}
		for {
			select {
			case <-stop:
				return
			default:
			}
			unix.Mprotect(mem[page:2*page], unix.PROT_NONE)
			unix.Mprotect(mem[page:2*page], unix.PROT_READ|unix.PROT_WRITE)
			copy(mem[:], names[r.IntN(len(names))])
			copy(mem[page-2:], names[r.IntN(len(names))])
			runtime.Gosched()
		}
	})
	m, _ := machineNamed(runtime.GOARCH)
	r := rand.New(rand.NewPCG(seed, 2))
	number := func() uintptr {
		switch r.IntN(6) {
		case 0:
			return base + uintptr(r.IntN(4*page))
		case 1:
			return base + uintptr(page-2)
		case 2:
			return uintptr(r.Uint64())
		case 3:
			return uintptr(r.IntN(12))
		case 4:
			return ^uintptr(0) - uintptr(r.IntN(110))
		}
		return base
	}
	for range count {
		t := traps[r.IntN(len(traps))]
		nr, ok := m.own.Number(t.name)
		switch t.call {
		case callNewRoot, callClone3, callExecve, callExecveat: // not to lose the test
			continue
		}
		if !ok {
			continue
		}
		var v [6]uintptr
		for i := range v {
			v[i] = number()
		}
		for _, w := range t.when { // or the filter lets it through
			v[w.Arg] = uintptr(w.Value)
			if w.Op == seccomp.NotEqual {
				v[w.Arg] = uintptr(w.Mask)
			}
		}
		fd, _, errno := unix.RawSyscall6(uintptr(nr), v[0], v[1], v[2], v[3], v[4], v[5])
		if errno == 0 && (t.call == callOpen || t.call == callOpenat || t.call == callOpenat2 || t.call == callCreat) {
			unix.Close(int(fd))
		}
	}
	close(stop)
	wg.Wait()
	return nil
}

// probeStorm makes directories while signals rain. With WAIT_KILLABLE_RECV no
// call is made twice.
func probeStorm([]string) error {
	if err := enter("/tmp/storm"); err != nil {
		return err
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	self, me := os.Getpid(), unix.Gettid()
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Tgkill(self, me, unix.SIGURG)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for i := range 1000 {
		name := strconv.Itoa(i)
		if err := unix.Mkdir(name, 0o755); err != nil {
			return fmt.Errorf("mkdir %s: %w", name, err)
		}
		if err := expect("owner", ownerOf(name)[:5], "1000:"); err != nil {
			return err
		}
	}
	return nil
}

// probeRace opens new files, in four processes beside one that burns the CPU. No
// open may return a descriptor that is taken.
func probeRace(args []string) error {
	if len(args) == 0 {
		hog := exec.Command("/probe", "hog")
		if err := hog.Start(); err != nil {
			return err
		}
		var all []*exec.Cmd
		for i := range 4 {
			c := exec.Command("/probe", "race", strconv.Itoa(i))
			c.Stderr = os.Stderr
			if err := c.Start(); err != nil {
				return err
			}
			all = append(all, c)
		}
		var err error
		for _, c := range all {
			err = errors.Join(err, c.Wait())
		}
		hog.Process.Kill()
		hog.Wait()
		return err
	}
	if err := enter("/tmp/race" + args[0]); err != nil {
		return err
	}
	for i := range 2000 {
		name := strconv.Itoa(i)
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
		if err != nil || fd <= 2 {
			return fmt.Errorf("open %s: descriptor %d, %w", name, fd, err)
		}
		if _, err := unix.Write(fd, []byte(name)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := first(unix.Close(fd), unix.Unlink(name)); err != nil {
			return err
		}
	}
	return nil
}

func probeHog([]string) error {
	for start := time.Now(); time.Since(start) < time.Minute; {
	}
	return nil
}

// probeForks is many processes at once that are trapped all the time, half of
// which are killed in the middle of it.
func probeForks(args []string) error {
	if len(args) > 0 {
		var st unix.Stat_t
		for {
			unix.Lstat("/probe", &st)
			unix.Geteuid()
			unix.Chown("/tmp/x"+args[0], 5, 5)
			fd, err := unix.Open("/tmp/x"+args[0], unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
			if err == nil {
				unix.Close(fd)
			}
			unix.Unlink("/tmp/x" + args[0])
		}
	}
	const many = 30
	var all []*exec.Cmd
	for i := range many {
		c := exec.Command("/probe", "forks", strconv.Itoa(i))
		if err := c.Start(); err != nil {
			return err
		}
		all = append(all, c)
	}
	for i := range 500 {
		if err := expect("in the middle", ownerOf("/probe"), "0:0:755"); err != nil {
			return err
		}
		if i%30 == 0 && i/30 < many {
			all[i/30].Process.Kill()
		}
	}
	for _, c := range all {
		c.Process.Kill()
		c.Wait()
	}
	return nil
}

// probeFuse mounts a filesystem that never answers, has one process hang on it, and
// goes on.
func probeFuse(args []string) error {
	var st unix.Stat_t
	if len(args) > 0 {
		unix.Lstat("/mnt/x", &st)
		return nil
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fmt.Println("no fuse")
		return nil
	}
	if err := unix.Mount("fuse", "/mnt", "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		fmt.Println("no fuse")
		return nil
	}
	for range 3 {
		if err := exec.Command("/probe", "fuse", "hang").Start(); err != nil {
			return err
		}
	}
	time.Sleep(100 * time.Millisecond)
	start := time.Now()
	for range 100 {
		if err := expect("beside a hanging one", ownerOf("/probe"), "0:0:755"); err != nil {
			return err
		}
	}
	if took := time.Since(start); took > time.Minute {
		return fmt.Errorf("100 calls took %s", took)
	}
	return nil
}
