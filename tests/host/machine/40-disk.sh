#!/bin/bash
# testhost: --cpus 2 --timeout 1200 shared
# The disk is a disk: fio verifies what it wrote (random, sequential, discard), a reset in the middle of
# it all leaves the machine and the image whole, errors and sizes reach the guest.
. "$(dirname "$0")/../lib.sh"
plan 14

cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
mib=$(times 64 256) seed=$RANDOM
diag "seed $seed"
guest=(--kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --disk "path=$TMP/root.img")
line='console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init'
fio="fio --direct=1 --ioengine=libaio --verify=crc32c --do_verify=1 --output-format=terse --randseed=$seed"
fio+=" --size=$(times 8 48)M"

# What the guest does with each disk, one after the other: it reads this from a disk too.
cat >"$TMP/script" <<GUEST
try() { if eval "\$2"; then echo "PASS \$1"; else echo "FAIL \$1"; fi; }
fio='$fio'
GUEST
cat >>"$TMP/script" <<'GUEST'
try random "$fio --filename=/dev/vdc --name=r --rw=randwrite --bs=4k --iodepth=16"
try sequential "$fio --filename=/dev/vdd --name=s --rw=write --bs=128k --iodepth=8"
try mixed "$fio --filename=/dev/vde --name=m --rw=randrw --bsrange=512-64k --iodepth=8"
try discard 'blkdiscard /dev/vdf'
echo 3 >/proc/sys/vm/drop_caches
try reads-zero 'cmp -n $(blockdev --getsize64 /dev/vdf) /dev/vdf /dev/zero'
try write-zeroes "$fio --filename=/dev/vdg --name=z --rw=write --bs=64k && blkdiscard -z /dev/vdg &&
	cmp -n $(blockdev --getsize64 /dev/vdg) /dev/vdg /dev/zero"
try readonly '! dd if=/dev/zero of=/dev/vdh bs=4k count=1 conv=fsync 2>/dev/null && test $(cat /sys/block/vdh/ro) = 1'
try serial 'test $(cat /sys/block/vdh/serial) = S1234'
try blocks 'test $(cat /sys/block/vdi/queue/logical_block_size) = 4096'
echo DONE
GUEST
truncate -s 8k "$TMP/script"
tr '\0' '\n' <"$TMP/script" >"$TMP/script.img"
for name in random sequential mixed discard zeroes readonly blocks; do truncate -s "${mib}M" "$TMP/$name.img"; done
dd if=/dev/urandom of="$TMP/discard.img" bs=1M count=8 conv=notrunc status=none
before=$(stat -c %b "$TMP/discard.img")

guest_start disks hospes run "${guest[@]}" --cpus 2 --io-threads 1 --disk "path=$TMP/script.img,readonly=on" \
	--disk "path=$TMP/random.img" --disk "path=$TMP/sequential.img,cache=direct" \
	--disk "path=$TMP/mixed.img,cache=writethrough,queues=4" --disk "path=$TMP/discard.img" \
	--disk "path=$TMP/zeroes.img" --disk "path=$TMP/readonly.img,readonly=on,serial=S1234" \
	--disk "path=$TMP/blocks.img,block_size=4096" --cmdline "$line hospes.sh=\"sh /dev/vdb\""
guest_wait disks 400
is $? 0 "a guest with nine disks powers off"
passed() { # NAME WHAT
	like "$(guest_log disks)" "PASS $1" "$2" || guest_show disks
}
passed random "random writes verify, through the page cache"
passed sequential "sequential writes verify, O_DIRECT"
passed mixed "mixed sizes verify, written through, four queues"
passed discard "discard is done"
ok "and gives space back: $before blocks before, $(stat -c %b "$TMP/discard.img") after" \
	test "$(stat -c %b "$TMP/discard.img")" -lt "$before"
passed reads-zero "and it reads as zeroes"
passed write-zeroes "write zeroes"
passed readonly "a read-only disk cannot be written"
passed serial "the serial number is reported"
passed blocks "a disk of 4096-byte blocks says so"

# Reset under load, three times: the guest resets itself while fio writes.
guest_start reset hospes run "${guest[@]}" --disk "path=$TMP/random.img" --cpus 2 --cmdline \
	"$line reboot=a hospes.sh=\"(sleep 3; echo b >/proc/sysrq-trigger) & $fio --filename=/dev/vdb --name=l --rw=randwrite --bs=4k --iodepth=32 --time_based --runtime=100\""
ok "resets under load: three boots" guest_times reset 'HOSPES-GUEST: up' 3 600 || guest_show reset
guest_kill reset
after() {
	guest_start after hospes run "${guest[@]}" --disk "path=$TMP/random.img" --cmdline \
		"$line hospes.sh=\"$fio --filename=/dev/vdb --name=r --rw=randwrite --bs=4k --iodepth=16\""
	guest_wait after 300 && guest_log after | grep -q 'HOSPES-GUEST: exit 0'
}
ok "afterwards the disk still verifies" after || guest_show after
ok "and the root file system is whole" e2fsck -fp "$TMP/root.img"
