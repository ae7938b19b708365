// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sbx/tests/need"
)

// aptWorld is a Debian that reaches the package mirror of this machine.
func aptWorld(t testing.TB) *world {
	t.Helper()
	need.Need(t, need.Mirror)
	w := newWorld(t, debian)
	w.hostNetwork = true
	for _, name := range []string{"etc/resolv.conf", "etc/hosts"} {
		if data, err := os.ReadFile("/" + name); err == nil {
			to := filepath.Join(w.dir, "upper", name)
			w.must(os.MkdirAll(filepath.Dir(to), 0o755))
			w.must(os.WriteFile(to, data, 0o644))
		}
	}
	return w
}

// The matrix of root-emulation.md, §2, in its order, in one root filesystem: each
// line is a container of its own, so that owners must outlive it.
func TestMatrix(t *testing.T) {
	w := aptWorld(t)
	const pg = `export PATH=$PATH:/usr/lib/postgresql/15/bin; `
	for _, tt := range []struct{ name, script, want string }{
		{"apt-get update", `apt-get update -qq >/dev/null; stat -c %U /var/lib/apt/lists/partial; ls /var/lib/apt/lists | grep -c Packages`, ""},
		{"apt-get update as root", `apt-get -o APT::Sandbox::User=root update -qq`, ""},
		{"apt-get install", `printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
			apt-get install -y -qq --no-install-recommends postgresql nginx openssh-server sudo git python3-flask python3-pip libcap2-bin acl attr iputils-ping perl adduser >/tmp/log 2>&1 || { tail -20 /tmp/log; exit 1; }
			dpkg --audit; stat -c '%U:%G %a' /etc/ssl/private /var/lib/postgresql/15/main /usr/bin/sudo /usr/bin/ssh-agent`,
			"root:ssl-cert 710\npostgres:postgres 700\nroot:root 4755\nroot:_ssh 2755"},
		{"useradd -m", `useradd -m -s /bin/bash a; stat -c %U:%G /home/a`, "a:a"},
		{"adduser --system", `adduser --system --group --home /srv/svc svc >/dev/null; stat -c %U:%G /srv/svc`, "svc:svc"},
		{"su - user -c id", `su - a -c 'id -un'`, "a"},
		{"su user creates files", `su - a -c 'touch f; stat -c %U f'`, "a"},
		{"chown, stat", `cd /root; touch f; chown 1000:1000 f; stat -c %u:%g f`, "1000:1000"},
		{"chown -R", `cd /root; mkdir -p t/u; touch t/u/v; chown -R a: t; find t ! -user a`, ""},
		{"chgrp and chmod", `cd /root; mkdir g; chgrp www-data g; chmod 2755 g; stat -c '%G %a' g`, "www-data 2755"},
		{"chown -h", `cd /root; ln -s none l; chown -h a l; stat -c %U l`, "a"},
		{"link after restart", `cd /root; stat -c %U l`, "a"},
		{"chown of a pipe", `cd /root; mkfifo p; chown a p; stat -c %U p`, "a"},
		{"install", `cd /root; install -o a -g www-data -m 640 /etc/passwd i; install -d -o a id; stat -c '%U:%G %a' i id`, "a:www-data 640\na:root 755"},
		{"cp -a", `cd /root; cp -a i j; cp -a g h; stat -c '%U:%G %a' j h`, "a:www-data 640\nroot:www-data 2755"},
		{"tar x and c", `cd /root; tar cf t.tar i g t l; mkdir x; tar xpf t.tar -C x; stat -c '%U:%G %a' x/i x/g x/t x/l; tar tvf t.tar | awk '{print $2}' | sort | uniq -c | tr -s ' '`,
			"a:www-data 640\nroot:www-data 2755\na:a 755\na:root 777\n 3 a/a\n 1 a/root\n 1 a/www-data\n 1 root/www-data"},
		{"mknod", `cd /root; mknod n c 1 3; test -c n`, ""},
		{"setcap", `cp /bin/true /tmp/c; setcap cap_net_raw+ep /tmp/c; getcap /tmp/c`, "/tmp/c cap_net_raw=ep"},
		{"setfacl is reported as done", `cd /root; touch acl; setfacl -m u:www-data:rw acl`, ""},
		{"drop and regain", `perl -MPOSIX -e '$)="1001 5 6"; $(=1001; POSIX::setgid(1001); POSIX::setuid(1000); exit(POSIX::setuid(0) ? 1 : 0)'`, ""},
		{"double fork", `perl -MPOSIX -e 'POSIX::setgid(33);POSIX::setuid(33); if(!fork){ if(!fork){ sleep 1; system("id -u > /tmp/ids"); exit } exit } wait'; sleep 2; cat /tmp/ids`, "33"},
		{"initdb", pg + `runuser -u postgres -- initdb -D /tmp/db >/dev/null 2>&1; stat -c %U:%a /tmp/db`, "postgres:700"},
		{"postgres and psql", pg + `cd /tmp; runuser -u postgres -- pg_ctl -D /tmp/db -o '-k /tmp -h ""' -w start >/dev/null; psql -h /tmp -U postgres -Atc 'select 40+2'; runuser -u postgres -- pg_ctl -D /tmp/db -m immediate stop >/dev/null`, "42"},
		{"cluster and peer", pg + `cd /tmp; pg_ctlcluster 15 main start; runuser -u postgres -- psql -Atc 'select current_user'; psql -U postgres -c 'select 1' 2>&1 | grep -o 'Peer authentication failed'; pg_ctlcluster 15 main stop -m immediate`, "postgres\nPeer authentication failed"},
		{"sshd", `mkdir -p /run/sshd /root/.ssh /home/a/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id; cp /root/.ssh/id.pub /root/.ssh/authorized_keys; install -o a -m 600 /root/.ssh/id.pub /home/a/.ssh/authorized_keys; chown a:a /home/a/.ssh
			/usr/sbin/sshd -p 2299 -o ListenAddress=127.0.0.1 -o PermitRootLogin=yes
			for u in root a; do ssh -i /root/.ssh/id -p 2299 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR $u@127.0.0.1 'id -un; touch ssh; stat -c %U ssh'; done; pkill sshd || kill $(cat /run/sshd.pid)`, "root\nroot\na\na"},
		{"ssh with a terminal", `/usr/sbin/sshd -p 2299 -o ListenAddress=127.0.0.1; ssh -tt -i /root/.ssh/id -p 2299 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR a@127.0.0.1 'stat -c %U $(tty)' | tr -d '\r'; kill $(cat /run/sshd.pid)`, "a"},
		{"sudo", `echo 127.0.0.1 world >> /etc/hosts; echo 'a ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/a; chmod 440 /etc/sudoers.d/a; sudo -n id -un; sudo -n -u a id -un; su a -c 'sudo -n id -un'; su a -c 'setpriv --no-new-privs sudo -n id -un'`,
			"root\na\nroot\nroot"},
		{"git", `su - a -c 'git init -q r; cd r; git -c user.name=a -c user.email=a@x commit -q --allow-empty -m x; git log --format=%s'`, "x"},
		{"pip", `mkdir -p /tmp/pk/m; printf 'from setuptools import setup\nsetup(name="m", version="1", packages=["m"])\n' > /tmp/pk/setup.py; touch /tmp/pk/m/__init__.py; pip install --break-system-packages --no-index --no-build-isolation -q /tmp/pk 2>&1 | grep -v -i warning || true; stat -c %U:%G /usr/local/lib/python3.11/dist-packages/m`, "root:root"},
		{"chpasswd, userdel", `echo a:secret | chpasswd; userdel -r a 2>/dev/null; ls /home; stat -c %U:%G:%a /etc/shadow`, "root:shadow:640"},
		{"nothing is half configured", `dpkg --audit; dpkg -l | grep -c '^iU' || true`, "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			got := w.sh(strings.ReplaceAll(tt.script, "\n\t\t\t", "\n"))
			if tt.want != "" && got != tt.want || tt.want == "" && tt.name != "apt-get update" && got != "" {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	checkDisk(t, w)
}

// In mode Zero the same packages install with apt's own user switched off.
func TestZeroInstall(t *testing.T) {
	w := aptWorld(t)
	w.mode = Zero
	w.must(os.MkdirAll(filepath.Join(w.dir, "upper", "etc"), 0o755))
	w.must(os.WriteFile(filepath.Join(w.dir, "upper", "etc", "apt-zero.conf"), []byte(APTConfig), 0o644))
	got := w.sh(`printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq; apt-get install -y -qq --no-install-recommends openssh-server nginx-light >/tmp/log 2>&1 || { tail -20 /tmp/log; exit 1; }; dpkg --audit`)
	if got != "" {
		t.Error(got)
	}
}
