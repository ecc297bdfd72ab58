#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 400 destructive
# Half of a guest's memory is taken from it and given back while its passed-through NVMe controller and a virtio
# disk work: what leaves is neither resident nor pinned, and all data are good. Without a passed-through device
# memory that the guest frees leaves by itself.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
plan 20
vfio_bind "$nvme" || bail "$nvme does not bind to vfio-pci"
unset XDG_RUNTIME_DIR
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
truncate -s 64M "$TMP/data.img"

# of NAME JQ: a number of its status. rss, pins: MiB.
of() { hospes ctl "$1" status | jq -r "$2"; }
balloon() { of "$1" ".devices[] | select(.id == \"balloon\") | $2"; }
rss() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/${guest_pid[$1]}/status"; }
pins() {
	cat /proc/sys/vm/stat_refresh >/dev/null
	awk '/^nr_foll_pin_acquired/ { a = $2 } /^nr_foll_pin_released/ { r = $2 } END { print int((a - r) / 256) }' /proc/vmstat
}
rounds() { guest_times "$1" '^round' $(($(grep -ac '^round' "$TMP/$1.log") + $2)) 90; }
# reach NAME SIZE BYTES: its balloon is set and says that it is there.
reach() {
	hospes ctl "$1" set "balloon=$2"
	wait_for "$TMP/$1.events" "\"event\":\"balloon\".*\"text\":\"$3\"" 60
	is "$(balloon "$1" .actual_bytes)" "$3" "$1: the balloon holds $2"
}

# shellcheck disable=SC2016 # the guest's
guest_start direct hospes run --name direct --kernel "$HOSPES_GUEST_BZIMAGE" --memory 1G --cpus 2 \
	--balloon stats=1,free_page_reporting=on --disk "path=$TMP/root.img" --disk "path=$TMP/data.img" \
	--passthrough "$nvme" --cmdline 'console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="while fio --size=2M --rw=randwrite --bs=4k --direct=1 --verify=crc32c --verify_fatal=1 --name=a --filename=/dev/nvme0n1 --name=b --filename=/dev/vdb >/tmp/fio 2>&1; do echo round; done; echo bad; cat /tmp/fio"'
ok "a guest writes and verifies" guest_times direct '^round' 1 90 || guest_show direct
hospes ctl direct events >"$TMP/direct.events" &
full=$(rss direct) pinned=$(pins)
is "$(of direct '.iommu.spaces[0].mapped_bytes')" $((1 << 30)) "all of its memory is mapped"
reach direct 512M $((512 << 20))
out=$(balloon direct .out_bytes) mib=$(($(balloon direct .out_bytes) >> 20))
diag "resident $full to $(rss direct) MiB, pinned $pinned to $(pins) MiB, out $mib MiB"
# The rest is in granules of which the guest keeps a page: how many there are is its affair.
ok "three quarters of that leave at least" [ "$mib" -ge 384 ]
ok "what has left is not resident any more" [ "$(rss direct)" -le $((full - mib + 8)) ]
ok "nor pinned" [ "$(pins)" -le $((pinned - mib + 1)) ]
is "$(of direct '.iommu.spaces[0].mapped_bytes')" $(((1 << 30) - out)) "nor mapped for the device"
ok "the guest goes on" rounds direct 2
ok "it gives statistics" [ "$(balloon direct .stats.total_bytes)" -gt $((100 << 20)) ]
is "$(balloon direct .reported_bytes)" 0 "nothing that it reports is discarded"
reach direct 0 0
is "$(of direct '.iommu.spaces[0].mapped_bytes')" $((1 << 30)) "all is mapped again"
ok "and pinned" [ "$(pins)" -ge $((pinned - 1)) ]
ok "the guest goes on with it" rounds direct 2
reach direct 128M $((128 << 20))
again() { sed -n '/"event":"reset"/,$p' "$TMP/direct.events" | grep -q '"event":"balloon"'; }
hospes ctl direct reset
ok "after a reset it starts with all of its memory, and gives it up again" \
	eval 'retry 30 grep -q "\"reset\"" "$TMP/direct.events" && retry 90 again'
unlike "$(guest_log direct)" '^bad' "all data were good"
unlike "$(dmesg)" 'fault addr|BUG:|Call Trace' "no DMA went wrong"
hospes ctl direct stop
guest_wait direct 30

# shellcheck disable=SC2016 # the guest's
guest_start reports hospes run --name reports --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--memory 512M --balloon free_page_reporting=on --cmdline 'console=ttyS0 quiet hospes.sh="dd if=/dev/zero of=/tmp/big bs=1M count=256; echo full; read -r line </dev/ttyS0; rm /tmp/big; echo free; read -r line </dev/ttyS0"'
ok "a guest without a passed-through device fills its memory" guest_wait_for reports '^full' 90
full=$(rss reports)
guest_send reports go
freed() { [ "$(rss reports)" -le $((full - 200)) ]; }
ok "what it frees leaves" retry 60 freed || diag "resident $full, $(rss reports) MiB"
hospes ctl reports stop
guest_wait reports 30
