#!/bin/busybox sh
# The first program of Partita's Debian guest. Its arguments, if any, are commands to run in place of a login:
# everything behind `--` on the kernel's command line, in double quotes.
echo "partita: user space"
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /proc /sys /dev /tmp /run
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=vt100
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null

if [ $# -gt 0 ]; then
    eval "$*"
else
    echo "$(uname -sr) on $(nproc) processors; 'poweroff -f' and 'reboot -f' end it"
    while true; do
        setsid cttyhack sh
    done
fi
poweroff -f
