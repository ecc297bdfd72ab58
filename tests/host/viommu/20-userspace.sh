#!/bin/bash
# testhost: --memory 4G --timeout 3000 destructive
# Controllers behind the virtual IOMMU, driven by a program in the guest (VFIO there) instead of its
# kernel: it reaches what it maps, each time, and nothing after it has unmapped it; not for writing what is
# mapped to be read; not what another has mapped. Strategies that change under its DMA. The guest's mappings
# and the hardware's table, compared. HOSPES_LONG=1: 100000 pages, 1000 changes.
. "$(dirname "$0")/lib.sh"
one=$(device 1b36:0010 0) && two=$(device 1b36:0010 1) || skip_all "needs two NVMe controllers"
[ -x "$programs/nvme" ] || skip_all "hospes was built without its tests"
for d in "$one" "$two"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done
tries=$(times 1000 100000) switches=$(times 100 1000)

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
give() { # BDF DRIVER
	echo "$2" >/sys/bus/pci/devices/$1/driver_override
	[ ! -e /sys/bus/pci/devices/$1/driver ] || echo $1 >/sys/bus/pci/devices/$1/driver/unbind
	echo $1 >/sys/bus/pci/drivers_probe
}
list=
for d in /sys/bus/pci/devices/*; do
	[ "$(cat $d/class)" != 0x010802 ] || list="$list ${d##*/}"
done
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 2>/dev/null && echo "kernel: read"
for d in $list; do give $d vfio-pci; done
/nvme $list </dev/ttyS0
for d in $list; do give $d nvme; done
i=0
until [ -b /dev/nvme0n1 ] || [ $i = 100 ]; do i=$((i + 1)); sleep 0.1; done
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 2>/dev/null && echo "kernel: reads again"
read line </dev/ttyS0
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh" "$programs/nvme"

# machine NAME CPUS TRANSPORT APPEND
machine() {
	embed "$1" '{"memory": {"size": "256M", "backing": "memfd"}, "cpus": {"count": '"$2"'},
		"kernel": {"path": "'"$HOSPES_GUEST_BZIMAGE"'", "initrd": "'"$TMP/initrd"'",
			"cmdline": "console=ttyS0 quiet vfio_iommu_type1.allow_unsafe_interrupts=1 '"$4"'"},
		"viommu": {"enabled": true, "transport": "'"$3"'"},
		"passthrough": [{"id": "one", "device": "'"$one"'", "strategy": "strict"},
			{"id": "two", "device": "'"$two"'", "strategy": "strict"}],
		"consoles": [{"type": "serial", "in": 7, "out": 1}]}'
	ok "$1: the guest's program has both controllers" guest_wait_for "$1" '^nvme: 2 ready' 120 ||
		{ guest_show "$1" 40; bail "$1 does not start"; }
}
finish() {
	tell_guest "$1" end
	ok "$1: and its kernel's driver takes over again" guest_wait_for "$1" '^kernel: reads again' 60 ||
		guest_show "$1" 40
	consistent "$1" "$1: with the kernel's drivers" "$one" "$two"
	tell_guest "$1" end
	guest_wait "$1" 90
	is $? 0 "$1: the guest powers off" || guest_show "$1" 40
}

machine exit 2 exit iommu.strict=1
like "$(guest_log exit)" '^kernel: read' "the guest's kernel has read its disk before"
is "$(in_guest exit 'verify 20' '^verify: ')" "verify: 20 good" "what it writes it reads back"
is "$(in_guest exit "unmap $tries" '^unmap: ' $((60 + tries / 10)))" "unmap: $tries reached, $tries stopped" \
	"$tries pages: each reached while it is mapped, none afterwards"
ok "and that is reported, with the address's last mapping" \
	guest_wait_for exit "DMA fault: write at iova 0x4000.* by $one: .*unmapped [0-9.]+ [num]?s ago" 30
is "$(in_guest exit readonly '^readonly: ')" "readonly: read 1 written 0" "a page to be read is not written"
is "$(in_guest exit domains '^domains: ')" "domains: own 1 other 0" "neither sees what the other has mapped"

is "$(in_guest exit 'map 100' '^map: ')" "map: 100" "a hundred pages stay mapped"
if has_tables "$one"; then
	is "$(hardware "$one" | sort | sha256sum)" \
		"$({ for i in 0 1 2 3; do printf '%x 3\n' $((0x10000 + i)); done
		for ((i = 0; i < 100; i++)); do printf '%x 3\n' $((0x80000 + i * 3)); done; } | sort | sha256sum)" \
		"the hardware's table has these and the program's queues, and nothing else" ||
		diag "$(hardware "$one" | head -n 5)"
else
	skip "the hardware's table" "this kernel does not show it"
fi
consistent exit "mapped" "$one" "$two"

before=$(dmesg | grep -c 'DMAR:.*fault addr')
in_guest exit hold '^hold: begun' >/dev/null || bail "no DMA"
is "$(to_machine exit "switch $switches" '^switch: ' $((120 + switches)))" "switch: $switches, 0 failed" \
	"$switches changes among direct, strict, deferred, cached and auto"
held=$(in_guest exit release '^hold: [0-9]+ good')
like "$held" '^hold: [1-9][0-9]* good, 0 bad' "DMA to a page that stays mapped goes on throughout ($held)"
is "$(dmesg | grep -c 'DMAR:.*fault addr')" "$before" "with no fault" || diag "$(dmesg | grep DMAR: | tail -n 12)"
is "$(in_guest exit 'unmap 20' '^unmap: ')" "unmap: 20 reached, 20 stopped" "and strict it is again"
is "$(to_machine exit 'strategy sorted' '^(error|strategy): ' | cut -d: -f1)" error "no such strategy"
to_machine exit 'strategy direct' '^strategy: ' >/dev/null
is "$(in_guest exit 'verify 5' '^verify: ')" "verify: 5 good" "direct: it works too"
to_machine exit 'strategy deferred' '^strategy: ' >/dev/null
is "$(in_guest exit 'verify 5' '^verify: ')" "verify: 5 good" "deferred: likewise"
to_machine exit 'strategy cached,quota=64K' '^strategy: ' >/dev/null
is "$(in_guest exit 'verify 5' '^verify: ')" "verify: 5 good" "cached: likewise"
is "$(in_guest exit 'unmap 20' '^unmap: ')" "unmap: 20 reached, 0 stopped" "and what is unmapped is reached, within the quota"
is "$(status_of exit | jq '.viommu.endpoints[] | select(.id == "one").retained | .hits >= 4 and .bytes == 65536')" true \
	"which is full, and what came again was found" || diag "$(status_of exit | jq -c .viommu)"
consistent exit "with what is stale" "$one" "$two"
for strategy in batched staged staged,quota=2M; do
	to_machine exit "strategy $strategy" '^strategy: ' >/dev/null
	is "$(in_guest exit 'verify 5' '^verify: ')" "verify: 5 good" "$strategy: likewise"
	is "$(in_guest exit 'unmap 20' '^unmap: ')" "unmap: 20 reached, 20 stopped" "and nothing is reached any more"
done
consistent exit "with copies" "$one" "$two"
to_machine exit 'strategy strict' '^strategy: ' >/dev/null
is "$(in_guest exit 'unmap 20' '^unmap: ')" "unmap: 20 reached, 20 stopped" "strict: and nothing is any more"
consistent exit "after the changes" "$one" "$two"
in_guest exit 'map 0' '^map: 0' >/dev/null
is "$(jq .viommu.mapped_bytes <<<"$(status_of exit)")" 32768 "unmapped: the programs' queues alone are left"
consistent exit "unmapped" "$one" "$two"
finish exit

for transport in loop poll; do
	machine "$transport" 2 "$transport" iommu.strict=0
	is "$(in_guest "$transport" 'verify 10' '^verify: ')" "verify: 10 good" "$transport: what it writes it reads back"
	is "$(in_guest "$transport" 'unmap 30' '^unmap: ')" "unmap: 30 reached, 30 stopped" \
		"$transport: reached while mapped, and not afterwards"
	finish "$transport"
done
done_testing
