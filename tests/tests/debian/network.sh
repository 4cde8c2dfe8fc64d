#!/bin/sh
# What Debian guests do in tests of the network: `. /script` as `server`, or as `client` of it.
dmesg -n 7
mkdir -p /srv /tmp
modprobe hv_netvsc
modprobe 8021q

# wait COMMAND...: until it succeeds.
wait() { until "$@" >/dev/null 2>&1; do sleep 1; done; }
# mark NAME VALUE: a line that the test looks for.
mark() { echo "mark $1=$2"; }
sum() { sha256sum "$1" | cut -c1-64; }
carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = "$1" ]; }

# up NUMBER: address and link.
up() {
    wait test -e /sys/class/net/eth0
    ip addr add 10.0.0.$1/24 dev eth0
    ip link set eth0 up
    wait carrier 1
}

# fetch FILE: from the server, checked against its sum there.
fetch() {
    wait wget -q -O /tmp/sum http://10.0.0.1/$1.sum
    wget -q -O /tmp/$1 http://10.0.0.1/$1
    [ "$(sum /tmp/$1)" = "$(cat /tmp/sum)" ] && echo same || echo other
}

# serve MEGABYTES: files, their sums, and a port that tells the sum of what it is sent.
serve() {
    dd if=/dev/urandom of=/srv/file bs=1M count=$1 2>/dev/null
    sum /srv/file > /srv/file.sum
    httpd -h /srv
    (while true; do nc -l -p 5000 > /tmp/got; sum /tmp/got > /srv/new; mv /srv/new /srv/got.sum; done) &
}

# give FILE: to the server, and hear what it got.
give() {
    until nc 10.0.0.1 5000 < /tmp/$1; do sleep 1; done
    wait wget -q -O /tmp/sum http://10.0.0.1/got.sum
    [ "$(sum /tmp/$1)" = "$(cat /tmp/sum)" ] && echo same || echo other
}

# channels: of the card, as its driver opened them.
channels() { ls /sys/bus/vmbus/devices/$(basename $(readlink /sys/class/net/eth0/device))/channels | wc -l; }
