#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 400 destructive
# Memory comes to a guest whose passed-through NVMe controller ('direct') and virtio disk work, and leaves again: what
# comes is mapped for the controller and pinned before the guest has it, what leaves is neither, and all data are good.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
vfio_bind "$nvme" || bail "$nvme does not bind to vfio-pci"
unset XDG_RUNTIME_DIR
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
truncate -s 64M "$TMP/data.img"

of() { hospes ctl plug status | jq -r "$1"; }
mapped() { of '.iommu.spaces[0].mapped_bytes'; }
pins() {
	cat /proc/sys/vm/stat_refresh >/dev/null
	awk '/^nr_foll_pin_acquired/ { a = $2 } /^nr_foll_pin_released/ { r = $2 } END { print int((a - r) / 256) }' /proc/vmstat
}
# rounds FILTER N: N more of the lines that the filter finds.
rounds() { guest_times plug "$1" $(($(grep -ac "$1" "$TMP/plug.log") + $2)) 120; }
events() { grep -c '"event":"memory"' "$TMP/events"; }
new_events() { [ "$(events)" -ge "$1" ]; }
change() {
	local before
	before=$(events)
	hospes ctl plug set "memory=$1" || return
	retry 60 new_events $((before + 1)) || return
	tail -n 1 "$TMP/events"
}

# What fio works with is anonymous, which the guest takes from memory that can move first: from what came. It says
# after each round how many blocks of 128M it has, and how many pages were taken from those that can move.
# shellcheck disable=SC2016 # the guest's
guest_start plug hospes run --name plug --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M,max=1G --cpus 2 \
	--disk "path=$TMP/root.img" --disk "path=$TMP/data.img" --passthrough "$nvme" \
	--cmdline 'console=ttyS0 quiet memhp_default_state=online_movable root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="while fio --size=2M --rw=randwrite --bs=64k --direct=1 --verify=crc32c --verify_fatal=1 --name=a --filename=/dev/nvme0n1 --name=b --filename=/dev/vdb >/tmp/fio 2>&1; do echo round $(grep -c ^online /sys/devices/system/memory/memory*/state | grep -c :1) movable $(sed -n s/^pgalloc_movable.//p /proc/vmstat); done; echo bad; cat /tmp/fio"'
ok "a guest with 512M writes and verifies" guest_times plug '^round 4 movable 0' 1 90 || guest_show plug
hospes ctl plug events >"$TMP/events" &
wait_for "$TMP/events" '"event":"stream"' 20
is "$(mapped)" $((512 << 20)) "all of its memory is mapped"
pinned=$(pins)
like "$(change 1G)" "\"bytes\":$((1 << 30))}" "as much again comes"
is "$(mapped)" $((1 << 30)) "all of that is mapped too"
ok "and pinned" [ "$(pins)" -ge $((pinned + 511)) ]
ok "the guest goes on, with what came" rounds '^round 8 movable [1-9]' 3 || guest_show plug
resets() { of .resets; }
hospes ctl plug reset
is "$(resets)" 1 "a reset in the middle"
ok "the guest starts with all of it" rounds '^round 8 movable [1-9]' 2 || guest_show plug
is "$(mapped)" $((1 << 30)) "which is mapped"
like "$(change 512M)" "\"bytes\":$((512 << 20))}" "what came leaves while both work"
is "$(mapped)" $((512 << 20)) "it is not mapped any more"
ok "nor pinned" [ "$(pins)" -le $((pinned + 1)) ]
ok "the guest goes on without" rounds '^round 4 ' 2 || guest_show plug
like "$(change 768M)" "\"bytes\":$((768 << 20))}" "some of it comes back"
ok "the guest goes on with that" rounds '^round 6 ' 2 || guest_show plug
unlike "$(guest_log plug)" '^bad|Call Trace|add_memory failed' "all data were good"
unlike "$(dmesg)" 'fault addr|BUG:|Call Trace' "no DMA went wrong"
hospes ctl plug stop
guest_wait plug 30
done_testing
