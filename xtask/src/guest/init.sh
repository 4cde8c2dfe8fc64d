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

# dhcp: brings up the first network card, with an address by DHCP.
dhcp() {
    modprobe hv_netvsc
    until [ -e /sys/class/net/eth0 ]; do sleep 0.2; done
    ip link set lo up
    ip link set eth0 up
    udhcpc -q -i eth0 -O mtu -s /etc/udhcpc/default.script
}

# With root=DEVICE, this is only the way to that device's file system.
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
if [ -n "$root" ]; then
    for module in hv_vmbus sd_mod ext4 hv_storvsc; do modprobe -q $module; done
    tries=0
    until mkdir -p /newroot && mount -t ext4 "$root" /newroot 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 300 ]; then
            echo "there is no file system on $root; this is a shell to find out why"
            setsid cttyhack sh
            poweroff -f
        fi
        sleep 0.2
    done
    mkdir -p /newroot/run
    echo "$*" > /newroot/run/commands
    [ $# -gt 0 ] || rm /newroot/run/commands
    for folder in proc sys dev; do mount -o move /$folder /newroot/$folder; done
    exec switch_root /newroot /sbin/init
fi

if [ $# -gt 0 ]; then
    eval "$*"
else
    echo "$(uname -sr) on $(nproc) processors; 'poweroff -f' and 'reboot -f' end it"
    while true; do
        setsid cttyhack sh
    done
fi
poweroff -f
