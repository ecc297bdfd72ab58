#!/bin/bash
# testhost: --cpus 2 --timeout 1200 shared
# The disk is a disk: fio verifies what it wrote (random, sequential, discard), a reset in the middle of
# it all leaves the machine and the image whole, errors and sizes reach the guest.
. "$(dirname "$0")/../lib.sh"
plan 13

cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
mib=$(times 64 256) seed=$RANDOM
diag "seed $seed"
truncate -s "${mib}M" "$TMP/data.img"
guest=(--kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --disk "path=$TMP/root.img")
line='console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init'

fio="fio --filename=/dev/vdb --direct=1 --ioengine=libaio --verify=crc32c --do_verify=1 --output-format=terse --randseed=$seed"
fio+=" --size=$(times 8 48)M"
run() { # NAME CMDS DISKOPTIONS…
	local name=$1 cmds=$2 status=0
	shift 2
	guest_start "$name" hospes run "${guest[@]}" "$@" --cmdline "$line hospes.sh=\"$cmds\""
	guest_wait "$name" 300 || status=$?
	[ "$status" = 0 ] && guest_log "$name" | grep -q 'HOSPES-GUEST: exit 0' && return 0
	guest_show "$name"
	return 1
}

ok "random writes verify, through the page cache" run random \
	"$fio --name=r --rw=randwrite --bs=4k --iodepth=16" --disk "path=$TMP/data.img"
ok "sequential writes verify, O_DIRECT, in an I/O thread" run sequential \
	"$fio --name=s --rw=write --bs=128k --iodepth=8" --disk "path=$TMP/data.img,cache=direct" \
	--io-threads 1
ok "mixed sizes verify, written through, four queues" run mixed \
	"$fio --name=m --rw=randrw --bsrange=512-64k --iodepth=8" \
	--disk "path=$TMP/data.img,cache=writethrough,queues=4" --cpus 2
before=$(stat -c %b "$TMP/data.img")
ok "discard gives space back" run discard 'blkdiscard /dev/vdb' --disk "path=$TMP/data.img"
ok "$before blocks before, $(stat -c %b "$TMP/data.img") after" \
	test "$(stat -c %b "$TMP/data.img")" -lt "$before"
ok "and it reads as zeroes" run zeroes "cmp -n $((mib << 20)) /dev/vdb /dev/zero" \
	--disk "path=$TMP/data.img,readonly=on"
ok "write zeroes" run writezeroes \
	"$fio --name=z --rw=write --bs=64k && blkdiscard -z /dev/vdb && cmp -n $((mib << 20)) /dev/vdb /dev/zero" \
	--disk "path=$TMP/data.img"
ok "a read-only disk cannot be written" run readonly \
	'! dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null && test $(cat /sys/block/vdb/ro) = 1' \
	--disk "path=$TMP/data.img,readonly=on"
ok "the serial number is reported" run serial 'test $(cat /sys/block/vdb/serial) = S1234' \
	--disk "path=$TMP/data.img,serial=S1234"
ok "512-byte requests on a disk of 4096-byte blocks are not made" run blocks \
	'test $(cat /sys/block/vdb/queue/logical_block_size) = 4096' \
	--disk "path=$TMP/data.img,block_size=4096"

# Reset under load, three times: the guest resets itself while fio writes.
guest_start reset hospes run "${guest[@]}" --disk "path=$TMP/data.img" --cpus 2 --cmdline \
	"$line reboot=a hospes.sh=\"(sleep 3; echo b >/proc/sysrq-trigger) & $fio --name=l --rw=randwrite --bs=4k --iodepth=32 --time_based --runtime=100\""
ok "resets under load: three boots" guest_times reset 'HOSPES-GUEST: up' 3 600 || guest_show reset
guest_kill reset
ok "afterwards the disk still verifies" run after \
	"$fio --name=r --rw=randwrite --bs=4k --iodepth=16" --disk "path=$TMP/data.img"
ok "and the root file system is whole" e2fsck -fp "$TMP/root.img"
