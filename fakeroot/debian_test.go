// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// The lines of root-emulation.md, §7, that need no network, in Debian: each is a
// script whose exit status decides, and what it prints.
func TestDebian(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"01 chown", `touch f; chown 1000:1001 f; stat -c %u:%g f; ls -n f | cut -d' ' -f3,4; chown root: f; chown :5 f; stat -c %u:%g f`,
			"1000:1001\n1000 1001\n0:5"},
		{"01 base image", `stat -c '%U:%G %a %n' /etc/shadow /usr/bin/chage /bin/su /var/mail /var/local /tmp`,
			"root:shadow 640 /etc/shadow\nroot:shadow 2755 /usr/bin/chage\nroot:root 4755 /bin/su\nroot:mail 2775 /var/mail\nroot:staff 2775 /var/local\nroot:root 1777 /tmp"},
		{"02 chown -h", `ln -s nowhere l; chown -h 7 l; stat -c %u:%g l; mkfifo p; chown 8:9 p; stat -c %u:%g p`, "7:0\n8:9"},
		{"02 tmpfs", `touch /dev/shm/f; chown 5:6 /dev/shm/f; stat -c %u:%g /dev/shm/f; ln -s x /dev/shm/l; chown -h 1 /dev/shm/l; stat -c %u /dev/shm/l`, "5:6\n1"},
		{"02 ramfs", `mount -t ramfs none /mnt; mkdir /mnt/d; touch /mnt/f; chown 5:6 /mnt/f /mnt/d; stat -c %u:%g /mnt/f /mnt/d; rm /mnt/f; touch /mnt/f; stat -c %u:%g /mnt/f`, "5:6\n5:6\n0:0"},
		{"02 chown -R", `cp -r /etc/apt /root/t; chown -R 33:44 t; find t ! -user 33 -o ! -group 44`, ""},
		{"03 setpriv", `setpriv --reuid 1000 --regid 1001 --groups 5,7 sh -c 'id -u; id -g; id -G'`, "1000\n1001\n1001 5 7"},
		{"03 perl drops", `perl -MPOSIX -e '$( = $) = "1001 1001"; POSIX::setuid(1000); print "$< $> $(\n"; POSIX::setuid(0) and die "regained"; print "$!\n"'`,
			"1000 1000 1001 1001\nOperation not permitted"},
		{"04 double fork", `setpriv --reuid 1000 --clear-groups sh -c '(sh -c "sleep 0.1; id -u > /tmp/out" &) '; sleep 0.5; cat /tmp/out`, "1000"},
		{"05 prlimit", `setpriv --reuid 33 --clear-groups sh -c 'prlimit --locks=5:5 --pid $$; id -u; ulimit -S 2>/dev/null; id -u' | grep -v unlimited; bash -c 'ulimit -x 3; id -u; ulimit -x'`, "33\n33\n0\nunlimited"},
		{"07 useradd, su", `useradd -m a; stat -c %U:%G /home/a; su - a -c 'touch x; mkdir d; ln -s x l; stat -c %U:%G x d l; id -un; umask 077; touch y; stat -c %a y'; userdel -r a 2>/dev/null; ls /home`,
			"a:a\na:a\na:a\na:a\na\n600"},
		{"07 adduser --system", `addgroup --system svc >/dev/null; adduser --system --ingroup svc --home /srv/svc svc >/dev/null 2>&1; stat -c %U:%G /srv/svc`, "svc:svc"},
		{"07 install, cp -a", `install -o 5 -g 6 -m 4711 /bin/true f; install -d -o 7 -g 8 -m 2750 d; touch d/x; cp -a f g; cp -a d e; stat -c '%u:%g %a' f d d/x g e e/x`,
			"5:6 4711\n7:8 2750\n0:8 644\n5:6 4711\n7:8 2750\n0:8 644"},
		{"07 tar", `mkdir t; touch t/a t/b; ln -s a t/l; mkfifo t/p; chown -h 3:4 t/a t/l t/p; chown 5:6 t/b; chmod 6755 t/b; mknod t/n c 1 3; chown 0:9 t/n; tar cf t.tar t; mkdir u; tar xpf t.tar -C u; tar tvf t.tar --numeric-owner | awk '{print $1,$2,$NF}' | sort -k3; (cd u/t; stat -c '%u:%g %A %n' *)`,
			"drwxr-xr-x 0/0 t/\n-rw-r--r-- 3/4 t/a\nlrwxrwxrwx 3/4 a\ncrw-r--r-- 0/9 t/n\nprw-r--r-- 3/4 t/p\n-rwsr-sr-x 5/6 t/b\n"},
		{"07 chgrp, chmod", `mkdir d; chgrp mail d; chmod 2755 d; touch d/f; stat -c '%G %a' d d/f`, "mail 2755\nmail 644"},
		{"10 su without password", `useradd -m a; printf '#!/bin/sh\nid -u\n' > /tmp/s; chmod 4755 /tmp/s; su a -c 'cat /bin/su >/dev/null; id -u; /tmp/s'; chmod 4755 /usr/bin/id; su a -c 'id -u; id -ru'`, "1000\n1000\n0\n1000"},
		{"10 no_new_privs", `useradd -m a; chmod 4755 /usr/bin/id; su a -c 'setpriv --no-new-privs id -u'`, "0"},
		{"10 passwd", `useradd -m a; echo a:secret | chpasswd; su a -c 'printf "secret\nOther1secret\nOther1secret\n" | passwd' >/dev/null 2>&1; grep -c '^a:\$' /etc/shadow; stat -c %U:%G:%a /etc/shadow`, "1\nroot:shadow:640"},
		{"12 mknod", `mknod n c 1 3; test -c n; mknod b b 8 1; test -b b; stat -c '%F %t:%T' n b; mkfifo p; test -p p; setpriv --reuid 5 --clear-groups mknod /tmp/x c 1 3 2>/dev/null || echo refused`,
			"character special file 1:3\nblock special file 8:1\nrefused"},
		{"15 shell of a user", `useradd -m a; su - a -c 'for i in $(seq 200); do mkdir d$i; done; ls | wc -l; find . ! -user a'`, "200"},
		{"16 /dev/stdin", `exec 9</etc/shadow; ln -s /proc/self/fd/9 l; test -e l; stat -L -c %G /dev/fd/9; stat -c %F /dev/stdin; stat -L -c %F /dev/stdin </etc/passwd`, "shadow\nsymbolic link\nregular file"},
		{"16 unshare -m", `unshare -m sh -ec 'mount -t tmpfs none /mnt; touch /mnt/f; chown 5 /mnt/f; stat -c %u /mnt/f; stat -c %G /etc/shadow'; ls /mnt`, "5\nshadow"},
		{"16 chroot", `unset LC_ALL; mkdir -p j/bin j/lib64 j/lib j/etc; cp /bin/bash /bin/stat /bin/ls /bin/chown j/bin; cp /lib64/* j/lib64; cp -r /lib/x86_64-linux-gnu j/lib; touch j/etc/f; chown 3:4 j/etc/f; ln -s /etc/f j/l; chroot j /bin/bash -c 'cd /; stat -c %u:%g l /etc/f; stat -L -c %u:%g l ; chown 5 l; ls -ln etc/f' | tr -s ' ' | cut -d' ' -f1-4`,
			"0:0\n3:4\n3:4\n-rw-r--r-- 1 5 4"},
		{"17 copy-up", `stat -c %G /etc/shadow; echo x >> /etc/shadow; stat -c %U:%G:%a /etc/shadow; chown 5:6 /etc/passwd; stat -c %u:%g /etc/passwd; mv /etc/passwd /etc/p; stat -c %u:%g /etc/p`, "shadow\nroot:shadow:640\n5:6\n5:6"},
		{"removal", `mkdir -m 0 d; mkdir d/e; chmod 555 d/e; chown -R 5:5 d; rm -rf d; ls`, ""},
		{"write as user", `useradd -m a; su a -c 'echo x > /home/a/f; echo y >> /home/a/f; cat /home/a/f; cp /etc/passwd /home/a/p; stat -c %U /home/a/p /home/a/f'`, "x\ny\na\na"},
		{"find owners", `find / -xdev \( -user 0 -o -user 42 \) -prune -o -printf '%u %p\n' | head; find / -xdev -perm -4000 -type f | sort`,
			"/usr/bin/chfn\n/usr/bin/chsh\n/usr/bin/gpasswd\n/usr/bin/mount\n/usr/bin/newgrp\n/usr/bin/passwd\n/usr/bin/su\n/usr/bin/umount"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, debian)
			got := w.sh("cd /root; " + tt.script)
			if strings.HasPrefix(tt.name, "07 tar") {
				if !strings.HasSuffix(got, "3:4 -rw-r--r-- a\n5:6 -rwsr-sr-x b\n3:4 lrwxrwxrwx l\n0:9 crw-r--r-- n\n3:4 prw-r--r-- p") {
					t.Errorf("got\n%s", got)
				}
			} else if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			checkDisk(t, w)
		})
	}
}

// The tree that the container sees is what the image's archive says.
func TestTreeAsArchived(t *testing.T) {
	w := newWorld(t, debian)
	archive := filepath.Join(os.Getenv("SBX_TEST_IMAGES"), debian)
	out, err := exec.Command("tar", "tvf", archive, "--numeric-owner").Output()
	w.must(err)
	want := map[string]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		name := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(f[5], "."), "/"), "/")
		if !strings.Contains(line, " link to ") && name != "" && !strings.HasPrefix(name, "dev") && name != "proc" && name != "sys" {
			want[name] = f[0] + " " + f[1]
		}
	}
	seen := 0
	for line := range strings.Lines(w.sh(`cd /; find . -xdev -printf '%M %U/%G %P\n'`)) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(f) < 3 {
			continue
		}
		if v, ok := want[f[2]]; ok {
			seen++
			if got := f[0] + " " + f[1]; got != v {
				t.Errorf("%s: got %s, want %s", f[2], got, v)
			}
		}
	}
	if seen < len(want)*9/10 {
		t.Errorf("%d of %d files were seen", seen, len(want))
	}
}

// Calls by the numbers of the machine's 32-bit programs: chown and setuid do not
// fail, and no set-user-ID bit gets on the disk.
func Test32Bit(t *testing.T) {
	need.Need(t, need.Compat)
	w := newWorld(t, debian)
	const path = "/root/f"
	calls := [][4]uint32{
		{5, 0, unix.O_CREAT | unix.O_WRONLY, 0o644}, // open, whose descriptor is the first free one
		{182, 0, 5, 6}, {198, 0, 5, 6}, {15, 0, 0o4755, 0}, {214, 5, 0, 0}, {14, 0, unix.S_IFCHR | 0o666, 1<<8 | 3},
	}
	w.must(os.WriteFile(filepath.Join(w.dir, "upper", "small"), need.CompatProgram(path, calls), 0o755))
	if got, want := w.sh("/small; stat -c '%a %F' "+path), "4755 regular empty file"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	checkDisk(t, w)
}

// Killing the monitor leaves nothing of the container.
func TestKilledMonitor(t *testing.T) {
	w := newWorld(t, debian)
	c := w.start("/bin/sh", "-c", "echo ready; setpriv --reuid 5 --clear-groups sleep 1000")
	c.readUntil("ready")
	pidfd := c.pidOne()
	unix.Kill(c.process.PID, unix.SIGKILL)
	c.process.Wait()
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 1000); n != 1 {
		t.Errorf("the program outlived its monitor: %v", err)
	}
}

// Weaker modes do what they say.
func TestModes(t *testing.T) {
	const script = `cd /root; touch f; chown 5:6 f && echo chown; stat -c %u f; mknod n c 1 3 && ls n; setpriv --reuid 7 --clear-groups id -u`
	w := newWorld(t, debian)
	for mode, want := range map[Mode]string{
		None: "chown: changing ownership of 'f': Invalid argument\n0\nmknod: n: Operation not permitted\nsetpriv: setresuid failed: Invalid argument",
		Zero: "chown\n0\nls: cannot access 'n': No such file or directory\n0",
		IDs:  "chown\n0\nn\n7",

		NotifyFast: "chown\n5\nn\n7",
	} {
		w.mode = mode
		if got, _ := w.run("/bin/sh", "-c", script); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", mode, got, want)
		}
		w.run("/bin/rm", "-f", "/root/f", "/root/n")
	}
}
