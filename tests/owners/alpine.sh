# What people do to owners, on Alpine, whose programs are busybox's. A container of
# either rung runs it, and real root in a chroot does: all must end with the same tree.
set -e
umask 022
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
adduser -D -u 1234 ann
addgroup -g 2345 crew
addgroup ann crew
adduser -S -D -H -u 321 -G crew svc
echo ann:secret | chpasswd 2> /dev/null
passwd -l ann > /dev/null; passwd -u ann > /dev/null
su ann -c 'cd; mkdir d; touch d/f; umask 077; touch private; ln -s d l; mkfifo p; mkdir s; chgrp crew s; chmod 2770 s; touch s/in'
[ "$(su ann -c 'id -u')" = 1234 ]
[ "$(su - ann -c 'stat -c %U /etc/passwd .')" = "$(printf 'root\nann')" ]
! su ann -c 'chown root /home/ann/d' 2> /dev/null
mkdir -p /srv/tree/a/b
touch /srv/tree/a/b/c
chown -R svc:crew /srv/tree
chmod 1777 /srv/tree/a
install -o svc -g crew -m 4750 /bin/busybox /usr/local/bin/tool
cp -p /usr/local/bin/tool /srv/tool
chown 5:6 /srv/tool
ln -s nowhere /srv/link
chown -h 7:8 /srv/link
cp -a /home/ann /srv/copy
tar cf /srv/home.tar -C /home ann
mkdir /srv/untarred
tar xpf /srv/home.tar -C /srv/untarred
chgrp shadow /etc/motd
mv /srv/tree/a/b /srv/moved
rm -r /etc/opt /var/empty 2> /dev/null || true
adduser -D gone
deluser --remove-home gone 2> /dev/null || true
[ ! -e /home/gone ]
