#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 1500 destructive
# Half of a guest's memory is taken from it and given back while its passed-through NVMe controller and a virtio
# disk work: what leaves is neither resident nor pinned, and all data are good. How much leaves is the guest's affair:
# it is printed. With a smaller granule memory is in small pages. Without a passed-through device memory that the
# guest frees leaves by itself.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
plan 33
vfio_bind "$nvme" || bail "$nvme does not bind to vfio-pci"
unset XDG_RUNTIME_DIR
truncate -s 64M "$TMP/data.img"

# How long a guest may take for what it will do in any case, on a host that has little time for it.
patience=300
# of NAME JQ: a number of its status. All numbers of one status are of one moment.
of() { hospes ctl "$1" status | jq -r "$2"; }
# balloon NAME JQ: of what its balloon says.
balloon() { of "$1" ".devices[] | select(.id == \"balloon\") | $2"; }
mapped() { of "$1" '.iommu.spaces[0].mapped_bytes'; }
# What the device reaches and what has left are all of memory, at any moment.
all() { of "$1" '.iommu.spaces[0].mapped_bytes + ([.devices[] | select(.id == "balloon")][0].out_bytes)'; }
kib() { awk -v "key=$2:" '$1 == key { print $2 }' "/proc/${guest_pid[$1]}/smaps_rollup"; }
rss() { echo $(($(kib "$1" Rss) / 1024)); }
pins() {
	cat /proc/sys/vm/stat_refresh >/dev/null
	awk '/^nr_foll_pin_acquired/ { a = $2 } /^nr_foll_pin_released/ { r = $2 } END { print int((a - r) / 256) }' /proc/vmstat
}
rounds() { guest_times "$1" '^round' $(($(grep -ac '^round' "$TMP/$1.log") + $2)) "$patience"; }
# reach NAME SIZE BYTES: its balloon is set and says that it is there.
reach() {
	hospes ctl "$1" set "balloon=$2"
	ok "$1: the balloon reaches $2" wait_for "$TMP/$1.events" "\"event\":\"balloon\".*\"text\":\"$3\"" "$patience"
	is "$(balloon "$1" '"\(.target_bytes) \(.actual_bytes)"')" "$3 $3" "$1: it holds $2"
}
# has_left NAME RSS PINS: of what was there before, all that has left is neither resident nor pinned. The guest may
# move pages of its balloon meanwhile: then these numbers are of two moments, and are taken again.
has_left() {
	local mib=$(($(balloon "$1" .out_bytes) >> 20)) rss pins
	rss=$(rss "$1") pins=$(pins)
	[ "$mib" -gt 0 ] && [ "$(($(balloon "$1" .out_bytes) >> 20))" = "$mib" ] || return
	echo "$mib MiB have left: resident $2 to $rss, pinned $3 to $pins"
	[ "$rss" -le $(($2 - mib + 16)) ] && [ "$pins" -le $(($3 - mib + 16)) ]
}
# share NAME: of what was given, has left.
share() { balloon "$1" '"\(.given_bytes / 1048576 | floor) MiB given, \(.out_bytes / .given_bytes * 1000 | floor / 10) % of it left"'; }
# start NAME OPTION…: a guest that writes and verifies, on the controller and on a virtio disk.
# shellcheck disable=SC2016 # the guest's
start() {
	local name=$1
	shift
	cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
	guest_start "$name" hospes run --name "$name" --kernel "$HOSPES_GUEST_BZIMAGE" --memory 1G --cpus 2 "$@" \
		--disk "path=$TMP/root.img" --disk "path=$TMP/data.img" --passthrough "$nvme" \
		--cmdline 'console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="while fio --size=2M --rw=randwrite --bs=4k --direct=1 --verify=crc32c --verify_fatal=1 --name=a --filename=/dev/nvme0n1 --name=b --filename=/dev/vdb >/tmp/fio 2>&1; do echo round; done; echo bad; cat /tmp/fio"'
	ok "$name: a guest writes and verifies" guest_times "$name" '^round' 1 "$patience" || guest_show "$name"
	hospes ctl "$name" events >"$TMP/$name.events" &
	ok "$name: its events are read" wait_for "$TMP/$name.events" '"event":"stream"' "$patience"
}

start direct --balloon stats=1,free_page_reporting=on
full=$(rss direct) pinned=$(pins)
is "$(mapped direct)" $((1 << 30)) "all of its memory is mapped"
reach direct 512M $((512 << 20))
diag "granule 2M: $(share direct)"
ok "what has left is neither resident nor pinned any more" retry "$patience" has_left direct "$full" "$pinned"
is "$(all direct)" $((1 << 30)) "nor mapped for the device"
ok "the guest goes on" rounds direct 2
total() { [ "$(balloon direct '.stats.total_bytes // 0')" -gt $((100 << 20)) ]; }
ok "it gives statistics" retry "$patience" total
reach direct 0 0
is "$(mapped direct)" $((1 << 30)) "all is mapped again"
ok "and pinned" [ "$(pins)" -ge $((pinned - 16)) ]
ok "the guest goes on with it" rounds direct 2
# What it has now freed again it reports.
kept() { [ "$(balloon direct .kept_bytes)" -gt 0 ]; }
ok "it reports what it does not use" retry "$patience" kept
is "$(balloon direct .reported_bytes)" 0 "of that nothing is discarded, since the device has it"
reach direct 128M $((128 << 20))
again() { sed -n '/"event":"reset"/,$p' "$TMP/direct.events" | grep -q '"event":"balloon"'; }
hospes ctl direct reset
ok "after a reset it starts with all of its memory, and gives it up again" retry "$patience" again
unlike "$(guest_log direct)" '^bad' "all data were good"
hospes ctl direct stop
guest_wait direct "$patience"

start small --balloon granule=256K
full=$(rss small) pinned=$(pins)
ok "small: its memory is in small pages" [ "$(kib small AnonHugePages)" -lt $((32 << 10)) ]
reach small 512M $((512 << 20))
diag "granule 256K: $(share small)"
# Nearly all of it did whenever it was tried (96 to 99.7 %); the bound has room for a guest that is ten times as busy.
ok "small: most of it has left" [ "$(balloon small ".out_bytes * 4 / .given_bytes | floor")" -ge 3 ]
ok "small: what has left is neither resident nor pinned any more" retry "$patience" has_left small "$full" "$pinned"
is "$(all small)" $((1 << 30)) "small: nor mapped for the device"
unlike "$(guest_log small)" '^bad' "small: all data were good"
hospes ctl small stop
guest_wait small "$patience"
unlike "$(dmesg)" 'fault addr|kernel BUG|BUG: (unable|Bad|KASAN)|Oops' "no DMA went wrong"

# shellcheck disable=SC2016 # the guest's
guest_start reports hospes run --name reports --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--memory 512M --balloon free_page_reporting=on --cmdline 'console=ttyS0 quiet hospes.sh="dd if=/dev/zero of=/tmp/big bs=1M count=256; echo full; read -r line </dev/ttyS0; rm /tmp/big; echo free; read -r line </dev/ttyS0"'
ok "a guest without a passed-through device fills its memory" guest_wait_for reports '^full' "$patience"
full=$(rss reports)
guest_send reports go
# Of 256 MiB; the rest may be in blocks of which it keeps a page.
freed() { [ "$(rss reports)" -le $((full - 128)) ]; }
ok "what it frees leaves" retry "$patience" freed || diag "resident $full, $(rss reports) MiB"
hospes ctl reports stop
guest_wait reports "$patience"
is $? 1 "stopped by ctl, it says that it was ended"
