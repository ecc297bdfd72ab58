#!/bin/bash
# testhost: --cpus 2 --timeout 900
# Daemons serve a disk (qemu-storage-daemon: qcow2 with a backing file), a folder (virtiofsd) and a network
# (passt) by vhost-user; what is written is there, devices come and go, and a daemon that is killed costs its
# device and nothing else.
. "$(dirname "$0")/../lib.sh"

cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
seed=$RANDOM
diag "seed $seed"
size=$(times 64 256)
dd if=/dev/urandom of="$TMP/base.raw" bs=1M count="$size" status=none
qemu-img convert -O qcow2 "$TMP/base.raw" "$TMP/base.qcow2"
for disk in q late; do
	qemu-img create -q -f qcow2 -b "$TMP/base.qcow2" -F qcow2 "$TMP/$disk.qcow2"
done
base=$(sha256sum <"$TMP/base.qcow2")
mkdir "$TMP/share"
head -c 5000000 /dev/urandom >"$TMP/share/from-host"

listening() { ss -xlH | grep LISTEN | grep -qF "$1"; }
# daemon NAME CMD…: it serves $TMP/NAME.sock
daemon() {
	local name=$1
	shift
	"$@" >"$TMP/$name.daemon" 2>&1 &
	echo $! >"$TMP/$name.pid"
	retry 30 listening "$TMP/$name.sock" || { diag "$(cat "$TMP/$name.daemon")"; return 1; }
}
storage() { # NAME QUEUES
	daemon "$1" qemu-storage-daemon --blockdev "driver=file,node-name=f,filename=$TMP/$1.qcow2" \
		--blockdev driver=qcow2,node-name=q,file=f,discard=unmap \
		--chardev "socket,id=m,path=$TMP/$1.qmp,server=on,wait=off" --monitor chardev=m --export \
		"type=vhost-user-blk,id=e,node-name=q,addr.type=unix,addr.path=$TMP/$1.sock,writable=on,num-queues=$2"
}
virtiofsd=$(command -v virtiofsd || echo /usr/libexec/virtiofsd)
ok "the storage daemon listens" storage q 2
ok "virtiofsd listens" daemon share "$virtiofsd" --socket-path "$TMP/share.sock" --shared-dir "$TMP/share"
ok "passt listens" daemon net passt --foreground --vhost-user --socket "$TMP/net.sock" --runas 0 --mtu 1500 \
	-a 10.8.0.2 -n 24 -g 10.8.0.1 --map-host-loopback 10.8.0.1

guest=(--kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M)
refused() { timeout 30 hospes run "${guest[@]}" "$@" 2>&1 | tail -n 1; }
like "$(refused --viommu on --disk "vhost_user=$TMP/q.sock,viommu=on")" 'ACCESS_PLATFORM' \
	"behind the virtual IOMMU it is refused"
like "$(refused --memory 512M,backing=anonymous --share "vhost_user=$TMP/share.sock,tag=a")" \
	"share 'share0': shares guest memory" "so is memory that cannot be shared"
like "$(refused --disk "vhost_user=$TMP/none.sock")" "disk 'disk0'.*start its daemon first" "and a daemon that is not there"

guest_start vu hospes run --name vu "${guest[@]}" --cpus 2 --disk "path=$TMP/root.img" \
	--disk "vhost_user=$TMP/q.sock,queues=2,id=q" --share "vhost_user=$TMP/share.sock,tag=src" \
	--net "vhost_user=$TMP/net.sock" --cmdline \
	'console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="stty -echo </dev/ttyS0; echo ready; echo =0 0; . /dev/ttyS0"'
ok "a guest has all three" guest_wait_for vu '^ready' 120 || guest_show vu

# in_guest SECONDS CMD: its output is in $TMP/out (also where this runs in a subshell, as `ok` does it).
: >"$TMP/runs"
in_guest() {
	local n status=0
	echo >>"$TMP/runs"
	n=$(wc -l <"$TMP/runs")
	guest_send vu "{ $2; } >/tmp/out 2>&1; s=\$?; cat /tmp/out; echo; echo =$n \$s"
	guest_wait_for vu "^=$n " "$1" || { guest_show vu; return 1; }
	tr -d '\r' <"$TMP/vu.log" | sed "1,/^=$((n - 1)) /d; /^=$n /,\$d" >"$TMP/out"
	tr -d '\r' <"$TMP/vu.log" | grep -qx "=$n 0" || status=1
	[ "$status" = 0 ] || cat "$TMP/out"
	return "$status"
}
ctl() { timeout 60 hospes ctl vu "$@"; }
hospes ctl vu events >"$TMP/events" &

# removed ID [force]: and it is gone.
removed() {
	ctl remove "$@" && wait_for "$TMP/events" "\"device_removed\".*\"$1\"" 60 || { cat "$TMP/events"; return 1; }
}

# The disk.
first=$(head -c 4M "$TMP/base.raw" | sha256sum)
ok "the disk has what is in the backing file" in_guest 60 "head -c 4M /dev/vdb | sha256sum"
like "$(cat "$TMP/out")" "${first%% *}" "to the byte"
ok "it has two queues" in_guest 30 'test $(ls /sys/block/vdb/mq | wc -l) = 2'
fio="fio --filename=/dev/vdb --direct=1 --ioengine=libaio --verify=crc32c --do_verify=1 --output-format=terse --randseed=$seed --size=$(times 16 64)M"
ok "random writes verify" in_guest 200 "$fio --name=r --rw=randwrite --bs=4k --iodepth=16"
ok "sequential ones too, while the machine pauses now and then" in_guest 200 \
	"$fio --name=s --rw=write --bs=64k --iodepth=8 & true"
for _ in 1 2 3; do
	ctl pause && ctl resume
done
ok "and end" in_guest 200 "wait \$!"
ok "discard" in_guest 60 "blkdiscard -o 48M -l 8M /dev/vdb"

# The folder.
ok "the guest mounts the folder" in_guest 60 "mount -t virtiofs src /mnt"
from=$(sha256sum <"$TMP/share/from-host")
ok "a file of the host" in_guest 60 "sha256sum /mnt/from-host"
like "$(cat "$TMP/out")" "${from%% *}" "is the same in the guest"
ok "a file of the guest" in_guest 60 "head -c 5000000 /dev/urandom >/mnt/from-guest; sync; sha256sum </mnt/from-guest"
like "$(cat "$TMP/out")" "$(sha256sum <"$TMP/share/from-guest" | cut -d' ' -f1)" "is the same on the host"

# The network.
iperf3 -s -1 -p 5999 >"$TMP/iperf.log" 2>&1 &
ok "an address by DHCP" in_guest 120 \
	"ip link set eth0 up; busybox udhcpc -i eth0 -n -q -s /bin/true; ip addr add 10.8.0.2/24 dev eth0; ip route add default via 10.8.0.1"
ok "iperf3 through passt" in_guest 90 "iperf3 -c 10.8.0.1 -p 5999 -t 2" || diag "$(cat "$TMP/net.daemon")"

# One that comes and goes.
ok "another daemon" storage late 1
is "$(ctl add --disk "vhost_user=$TMP/late.sock,id=late")" late "its disk is added"
ok "the guest has it, and writes" in_guest 60 \
	'for i in $(seq 100); do test -e /dev/vdc && break; sleep 0.2; done; dd if=/dev/urandom of=/dev/vdc bs=64k count=64 oflag=direct conv=fsync'
qmp() { (printf '{"execute":"qmp_capabilities"}\n%s\n' "$2"; sleep 1) | nc -U -N "$TMP/$1.qmp"; }
like "$(qmp late '{"execute":"block_resize","arguments":{"node-name":"q","size":104857600}}')" '"return"' "it grows"
ok "the guest sees that" in_guest 30 \
	'for i in $(seq 100); do test $(cat /sys/block/vdc/size) = 204800 && break; sleep 0.2; done; test $(cat /sys/block/vdc/size) = 204800'
ok "it is removed" removed late
ok "the guest is without it" in_guest 30 'test ! -e /dev/vdc'
is "$(ctl status | jq -c '[.devices[] | select(.daemon) | .daemon]')" '["connected","connected","connected"]' \
	"the others are there"

# Daemons that are killed.
kill -9 "$(cat "$TMP/q.pid")"
ok "an event says that the disk's daemon is gone" wait_for "$TMP/events" '"device_error".*daemon is gone' 30 ||
	diag "$(cat "$TMP/events")"
like "$(grep device_error "$TMP/events")" '"q"' "and whose it was"
is "$(ctl status | jq -r '.devices[] | select(.id == "q") | .daemon')" gone "so does the status"
ok "the guest goes on" in_guest 30 "uptime"
ok "so does its folder" in_guest 30 "ls /mnt/from-guest"
ok "the disk can be removed" removed q force
kill -9 "$(cat "$TMP/share.pid")"
ok "an event says that the folder's is gone" wait_for "$TMP/events" '"share0".*daemon is gone|daemon is gone.*"share0"' 30
ok "the folder can be removed" removed share0 force
ok "and the guest goes on" in_guest 30 "uptime"
guest_kill vu

# It ends by itself when its front end does, or now.
kill "$(cat "$TMP/late.pid")" 2>/dev/null
for disk in q late; do
	ok "$disk.qcow2 is whole" qemu-img check -q "$TMP/$disk.qcow2"
done
is "$(sha256sum <"$TMP/base.qcow2")" "$base" "the backing file is as it was"
done_testing
