#!/bin/bash
# testhost: --cpus 2 --memory 5G --timeout 1500 long=6 destructive
# An NVMe controller and a VF come to a Linux guest while it runs, work, and leave it: with its consent and
# pulled out, under load, with a strategy behind the virtual IOMMU, and nothing is left: files, threads, pins,
# I/O page tables. And 'hospes ctl' opens them for a machine, by both backends.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) && pf=$(device 8086:10c9) || skip_all "needs an NVMe controller and an igb"
vfs_create "$pf" 1 || bail "no VF appears"
vf=$(vfs "$pf")
ip addr replace 10.9.0.1/24 dev "$(netdev "$pf")"
for d in "$nvme" "$vf"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done
dialogue "$TMP" "$(dirname "$0")/hotplug.py" "$(times 1 42)" "${HOSPES_TEST_SEED:-$RANDOM}" "$nvme" "$vf"

unset XDG_RUNTIME_DIR
by_ctl() { # BACKEND
	local name=$1
	guest_start "$name" hospes run --name "$name" --iommu "$1" --kernel "$HOSPES_GUEST_BZIMAGE" \
		--initrd "$HOSPES_GUEST_INITRD" --memory 192M --console serial --cmdline \
		'console=ttyS0 quiet hospes.sh="while sleep 1; do echo has $(ls /sys/block) $(ls /sys/class/net); done"'
	ok "$name: a guest runs" guest_wait_for "$name" '^has' 90
	hospes ctl "$name" events >"$TMP/$name.events" &
	is "$(hospes ctl "$name" add --passthrough "$nvme,id=ssd" --passthrough "$vf" 2>&1)" \
		$'ssd\npassthrough1' "$name: hospes ctl adds both" || guest_show "$name"
	ok "$name: the guest finds them" guest_wait_for "$name" '^has .*nvme0n1.* eth0' 60 || guest_show "$name"
	is "$(hospes ctl "$name" status | jq -c '[.iommu.backend, (.iommu.spaces | length)]')" "[\"$1\",2]" \
		"$name: each in a space of its own"
	ok "$name: both are asked for" eval "hospes ctl $name remove ssd && hospes ctl $name remove passthrough1"
	for d in ssd passthrough1; do
		ok "$name: $d is given up" wait_for "$TMP/$name.events" "device_removed\",\"forced\":false.*\"device\":\"$d\"" 60
	done
	hospes ctl "$name" stop
	guest_wait "$name" 30
}
by_ctl iommufd
by_ctl type1
done_testing
