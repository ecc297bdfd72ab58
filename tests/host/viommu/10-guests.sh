#!/bin/bash
# testhost: --memory 6G --timeout 900 destructive
# Behind a virtual IOMMU, with each buffer mapped and unmapped (iommu.strict=1) and lazily:
# virtio-blk and an NVMe controller of the host verify what they wrote; a reboot; no driver for it.
. "$(dirname "$0")/lib.sh"
nvme=$(device 1b36:0010 0) && two=$(device 1b36:0010 1) || skip_all "needs two NVMe controllers"
plan 30

ok "the controllers are VFIO's" eval 'vfio_bind "$nvme" && vfio_bind "$two"'
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
truncate -s 64M "$TMP/data.img"
line='console=ttyS0 root=/dev/vda rw init=/usr/lib/hospes/init'
fio='fio --direct=1 --ioengine=libaio --verify=crc32c --do_verify=1 --output-format=terse --size=8M --rw=randwrite --bs=16k --iodepth=8 --name=v'
types='for d in /sys/kernel/iommu_groups/*; do echo group $(cat $d/type) $(ls $d/devices); done'

# boot NAME BDF CMDS APPEND ARG…: its console is in log; BDF: a controller of the host's behind its IOMMU, or nothing.
boot() {
	local name=$1 real=$2 cmds=$3 append=$4
	shift 4
	guest_start "$name" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --verbose \
		--disk "path=$TMP/root.img" "$@" --cmdline "$line $append hospes.sh=\"$cmds; e=\$?; $idle; exit \$e\""
	# shellcheck disable=SC2086 # or nothing
	settled "$name" 150 $real
	guest_wait "$name" 60
	is $? 0 "$name: the guest powers off" || guest_show "$name" 60
	log=$(guest_log "$name" | tr -d '\r')
}

# What hospes counted: maps unmaps failed faults mapped.
counts() { sed -n 's/.*viommu: \([0-9]*\) maps, \([0-9]*\) unmaps, \([0-9]*\) refused, \([0-9]*\) faults.*/\1 \2 \3 \4/p' <<<"$log"; }

# Without bypass at start, and the root disk behind it too.
guest_start blk hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --verbose --viommu on,bypass=off \
	--disk "path=$TMP/root.img,viommu=on" --disk "path=$TMP/data.img,viommu=on" \
	--cmdline "$line iommu.strict=1 hospes.sh=\"$types; $fio --filename=/dev/vdb; e=\$?; $idle; exit \$e\""
settled blk 150
guest_wait blk 60
is $? 0 "blk: the guest powers off" || guest_show blk 60
log=$(guest_log blk | tr -d '\r')
like "$log" 'HOSPES-GUEST: exit 0' "virtio-blk and the root disk, strict, without bypass at start: fio verifies" || guest_show blk 40
like "$log" '^group DMA ' "its group is translated"
read -r maps unmaps refused faults <<<"$(counts)"
ok "$maps maps and $unmaps unmaps for at least 1024 requests" test "${unmaps:-0}" -ge 1024
is "${refused:-?} ${faults:-?}" "0 0" "none refused, no faults"

guest_start alone hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 128M --viommu \
	--cmdline 'console=ttyS0 hospes.test=hello'
guest_wait alone 60
is $? 0 "with nothing behind it Linux starts too" || guest_show alone 60
unlike "$(guest_log alone)" 'Oops|BUG:' "and finds nothing wrong"

# Linux resets the virtio-iommu before it shuts its NVMe controller down, which must be able to answer
# all the same: its driver would wait for a minute.
boot nvme "$nvme" "$types; $fio --filename=/dev/nvme0n1 && echo VERIFIED" iommu.strict=1 --viommu --cpus 4 \
	--passthrough "$nvme,strategy=strict" --disk "path=$TMP/data.img,viommu=on"
like "$log" '^VERIFIED' "NVMe, strict, 4 vCPUs: fio verifies" || guest_show nvme 60
unlike "$log" 'nvme.*(timeout|Device not ready)' "and is shut down without waiting"
read -r maps unmaps refused faults <<<"$(counts)"
ok "$maps maps and $unmaps unmaps for at least 1024 requests" test "${unmaps:-0}" -ge 1024
is "${refused:-?} ${faults:-?}" "0 0" "none refused, no faults"
unlike "$(dmesg)" 'DMAR:.*fault addr' "the host's IOMMU saw none either"

# A mark on the disk tells a guest that it has been rebooted.
mark='dd if=/dev/nvme0n1 bs=6 count=1 2>/dev/null | grep -q marked || { echo MARKING; printf marked | dd of=/dev/nvme0n1 conv=fsync; busybox reboot -f; }'
boot lazy "$nvme" "$mark; $fio --filename=/dev/nvme0n1 && $fio --filename=/dev/vdb && echo VERIFIED" iommu.strict=0 \
	--viommu --passthrough "$nvme,strategy=batched" --disk "path=$TMP/data.img,viommu=on"
like "$log" '^VERIFIED' "lazy, batched: both verify" || guest_show lazy 60
like "$log" '^MARKING' "having been rebooted"

# The same page at the same I/O address is what Linux gives a device that has one request at a time.
guest_start stale hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --verbose --viommu \
	--disk "path=$TMP/root.img" --passthrough "$nvme,strategy=deferred,id=deferred" \
	--passthrough "$two,strategy=cached,quota=8M,id=cached" \
	--cmdline "$line iommu.strict=1 hospes.sh=\"$fio --size=2M --filename=/dev/nvme0n1 && $fio --size=2M --iodepth=1 --filename=/dev/nvme1n1 && echo VERIFIED; $idle\""
guest_wait_for stale '^IDLE' 200
status=$(guest_status stale)
like "$(guest_log stale)" '^VERIFIED' "deferred and cached: fio verifies" || guest_show stale 60
is "$(jq -c '[.viommu.endpoints[].strategy] | sort' <<<"$status")" \
	'["cached,quota=8M,ttl=never","deferred,entries=256,window=10ms"]' "each device has its own"
ok "cached: some of what was mapped was found again" \
	jq -e '.viommu.endpoints[] | select(.id == "cached").retained | .hits > 100 and .bytes <= 8388608' <<<"$status" ||
	diag "$(jq -c .viommu <<<"$status")"
ok "deferred: all of it went" \
	jq -e '.viommu.endpoints[] | select(.id == "deferred").retained | .bytes == 0 and .evicted > 100' <<<"$status" ||
	diag "$(jq -c .viommu <<<"$status")"
consistent stale "with what is stale" "$nvme" "$two"
guest_kill stale

# Each call of the host's kernel is slow here, so that any mapping is more than 1 % of a CPU.
guest_start auto hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --verbose --viommu \
	--disk "path=$TMP/root.img" --passthrough "$nvme,strategy=auto,ceiling=8M,cpu=1%" \
	--cmdline "$line iommu.strict=1 hospes.sh=\"$fio --size=1M --loops=1000 --time_based --runtime=6 --iodepth=1 --filename=/dev/nvme0n1 && echo VERIFIED; $idle\""
guest_wait_for auto '^IDLE' 200
status=$(guest_status auto)
like "$(guest_log auto)" '^VERIFIED' "auto: fio verifies" || guest_show auto 60
like "$(guest_log auto)" 'auto: chose (batched|deferred|cached)' "another strategy than strict was chosen, and the log says why" || guest_show auto 60
ok "never more stale than the ceiling" \
	jq -e '.viommu.endpoints[0] | .chosen.decisions > 0 and .retained.peak_bytes <= 8388608' <<<"$status" ||
	diag "$(jq -c .viommu <<<"$status")"
diag "$(jq -c '.viommu.endpoints[0] | .chosen, .retained' <<<"$status")"
consistent auto "auto: with what is stale" "$nvme"
guest_kill auto

guest_start reset hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --viommu \
	--disk "path=$TMP/root.img" --disk "path=$TMP/data.img,viommu=on" --passthrough "$nvme,viommu=on" \
	--cmdline "$line reboot=a hospes.sh=\"(sleep 2; echo b >/proc/sysrq-trigger) & $fio --filename=/dev/nvme0n1 --time_based --runtime=100\""
ok "reset under load: two boots" guest_times reset 'HOSPES-GUEST: up' 2 120 || guest_show reset 60
guest_kill reset
