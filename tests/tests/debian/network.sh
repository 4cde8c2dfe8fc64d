#!/bin/sh
# What Debian guests do in tests of the network: `. /script` as `server`, or as `client` of it.
dmesg -n 7
mkdir -p /srv /tmp
modprobe hv_netvsc
modprobe 8021q

# wait COMMAND...: until it succeeds.
wait() { until "$@" >/dev/null 2>&1; do sleep 1; done; }
# mark NAME VALUE: a line that the test looks for.
mark() { name=$1; shift; echo "mark $name=$*"; }
sum() { sha256sum "$1" | cut -c1-64; }
size() { stat -c %s "$1"; }
carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = "$1" ]; }

# up NUMBER: address and link.
up() {
    wait test -e /sys/class/net/eth0
    ip addr add 10.0.0.$1/24 dev eth0
    ip link set eth0 up
    wait carrier 1
}

# compare SIZE SUM FILE: whether the file is of that size and has that sum.
compare() {
    [ "$(size $3)" = "$1" ] || { echo "$(size $3) bytes of $1"; return; }
    [ "$(sum $3)" = "$2" ] && echo same || echo other bytes
}

# fetch FILE: from the server, checked against its sum there.
fetch() {
    wait wget -q -O /tmp/sum http://10.0.0.1/$1.sum
    wget -q -O /tmp/$1 http://10.0.0.1/$1 || { echo "wget ended with $?"; return; }
    compare $(cat /tmp/sum) /tmp/$1
}

# serve MEGABYTES: files, their sums, and a port that tells the sum of what it is sent.
serve() {
    dd if=/dev/urandom of=/srv/file bs=1M count=$1 2>/dev/null
    echo "$(size /srv/file) $(sum /srv/file)" > /srv/file.sum
    httpd -h /srv
    # An input that never ends: at the end of its own, nc says that it will send nothing more, and the other side takes that for
    # the end of all and does not send the rest.
    mkfifo /tmp/never
    (exec 9<>/tmp/never; uploads=0; while true; do
        nc -l -p 5000 <&9 > /tmp/got
        uploads=$((uploads + 1))
        echo "$(size /tmp/got) $(sum /tmp/got)" > /srv/new
        mv /srv/new /srv/got.$uploads
    done) &
}

# give FILE NUMBER: to the server, as the upload of that number, and hear what it got. Nobody listens until the upload before has been
# looked at: then the connection is refused, and nothing was sent.
give() {
    until nc 10.0.0.1 5000 < /tmp/$1; do sleep 1; done
    wait wget -q -O /tmp/sum http://10.0.0.1/got.$2
    compare $(cat /tmp/sum) /tmp/$1
}

# channels: of the card, as its driver opened them.
channels() { ls /sys/bus/vmbus/devices/$(basename $(readlink /sys/class/net/eth0/device))/channels | wc -l; }

# queues: how many the card can have and has, as ethtool tells.
queues() { ethtool -l eth0 | sed -n 's/^Combined:[^0-9]*//p'; }
# came NAME: a counter of what the card has received.
came() { cat /sys/class/net/eth0/statistics/rx_$1; }
# packet_size: bytes of a packet of a file that is fetched, as the stack gets them.
packet_size() {
    bytes=$(came bytes); packets=$(came packets)
    fetch file >/dev/null
    echo $((($(came bytes) - bytes) / ($(came packets) - packets)))
}
# queue NUMBER: packets that came by that queue.
queue() { ethtool -S eth0 | sed -n "s/ *rx_queue_$1_packets: //p"; }
# by_queues: packets of a file that is fetched, by the card's first two queues.
by_queues() {
    first=$(queue 0); second=$(queue 1)
    fetch file >/dev/null
    echo $(($(queue 0) - first)) $(($(queue 1) - second))
}
# warnings: what the kernel has said of the card or its bus, as a warning or worse. TCP finds coalesced packets odd that do not tell of
# how many segments they are, which the driver leaves out on Hyper-V too.
warnings() { dmesg -r | grep -E '^<[0-4]>' | grep -E 'hv_|vmbus|netvsc|eth[0-9]' | grep -v 'suspect GRO'; }
