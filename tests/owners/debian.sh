# What people do to owners, on Debian. A container of either rung runs it, and real
# root in a chroot does: all must end with the same tree.
set -e
umask 022
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
useradd -m -s /bin/sh -u 1234 ann
groupadd -g 2345 crew
usermod -aG crew ann
useradd -r -M -u 321 -g crew svc
echo ann:secret | chpasswd
passwd -l svc > /dev/null
su ann -c 'cd; mkdir d; touch d/f; umask 077; touch private; ln -s d l; mkfifo p; mkdir s; chgrp crew s; chmod 2770 s; touch s/in'
su ann -c 'cd; perl -e "use IO::Socket::UNIX; IO::Socket::UNIX->new(Local => q(sock), Listen => 1)"' || true
runuser -u ann -- sh -c 'cd; : > by-runuser; ln d/f hard'
! su ann -c 'chown root /home/ann/d' 2> /dev/null
setpriv --reuid 321 --regid 2345 --clear-groups touch /tmp/by-setpriv
mkdir -p /srv/tree/a/b
touch /srv/tree/a/b/c
chown -R svc:crew /srv/tree
chmod 1777 /srv/tree/a
install -o svc -g crew -m 4750 /bin/true /usr/local/bin/tool
install -d -o ann -g www-data -m 2750 /srv/installed
cp -p /usr/local/bin/tool /srv/tool
chown 5:6 /srv/tool
cp --preserve=all /usr/bin/passwd /srv/passwd
chmod u-s /usr/bin/chsh
chgrp 77 /usr/bin/expiry
ln -s nowhere /srv/link
chown -h 7:8 /srv/link
cp -a /home/ann /srv/copy
tar cf /srv/home.tar -C /home ann
mkdir /srv/untarred
tar xpf /srv/home.tar -C /srv/untarred --same-owner
chown --from=ann:ann :crew /srv/untarred/ann/private
mv /srv/tree/a/b /srv/moved
mv /var/mail /srv/mail
rm -rf /etc/opt /srv/tree/a
useradd -m gone
userdel -r gone 2> /dev/null
