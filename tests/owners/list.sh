# Every file and whose it is, but for what a container brings with it, and sockets,
# which no layer has.
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /etc/hosts -o -path /etc/hostname -o -path /etc/resolv.conf -o -path /etc/mtab \) -prune \
	-o ! -type s -exec stat -c '%n %u:%g %a %F' {} + | sort
