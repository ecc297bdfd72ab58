#!/bin/bash
# testhost: --memory 5G --timeout 1500 long=4 destructive
# Passed-through devices are added to a machine and removed from it many times: before its start, while its
# guest boots, and while it is paused. In address spaces of their own, in one for all, behind a virtual
# IOMMU. Each time files, threads, pins and I/O page tables are as before.
. "$(dirname "$0")/../lib.sh"
destructive
nvme0=$(device 1b36:0010 0) && nvme1=$(device 1b36:0010 1) && edu=$(device 1234:11e8) ||
	skip_all "needs two NVMe controllers and an edu"
program=$HOSPES_BUILD/tests/host/passthrough/come_and_go
[ -x "$program" ] || skip_all "hospes was built without its tests"
rounds=$(times 2 50)
pinned() {
	cat /proc/sys/vm/stat_refresh >/dev/null
	awk '/^nr_foll_pin_acquired/ {n += $2} /^nr_foll_pin_released/ {n -= $2} END {print n}' /proc/vmstat
}
for d in "$nvme0" "$nvme1" "$edu"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
echo "guest is up"
read -r line
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

# come_and_go NAME KEYS KEYS [-eq ARGUMENT]: more keys of the document, and of each device; of the kernel.
# The guest does not look at its slots (pcie_ports=compat): the devices come and go faster than its drivers would
# find them, and some wait a minute for an answer.
# Its console is a file of its own: what the program says must not stand behind half a line of it.
come_and_go() {
	local name=$1 before d devices=()
	# The machine's own thread opens the devices.
	cat >"$TMP/$name.json" <<-DOCUMENT
		{"kernel": {"path": "$HOSPES_GUEST_BZIMAGE", "initrd": "$TMP/initrd",
		            "cmdline": "console=ttyS0 quiet pcie_ports=compat ${5:-}"}, "memory": {"size": "128M"},
		 "consoles": [{"in": 0, "path": "$TMP/$name.console"}], "sandbox": "off" $2}
	DOCUMENT
	for d in "$nvme0" "$nvme1" "$edu"; do devices+=("{\"device\": \"$d\" $3}"); done
	before=$(pinned)
	guest_start "$name" "$program" "$TMP/$name.json" "$rounds" "${devices[@]}"
	for when in created running paused; do
		ok "$name: $when, $rounds times" guest_wait_for "$name" "^$when: good" 300
	done
	ok "$name: once more, to stay" guest_wait_for "$name" '^last: they stay' 60
	# Behind a virtual IOMMU without bypass only what the guest has mapped is.
	ok "$name: with its memory pinned, or not" test "$(pinned)" "${4:--gt}" "$before"
	ok "$name: the guest lives" \
		wait_for "$TMP/$name.console" 'guest is up' 180 "${guest_pid[$name]}"
	guest_send "$name" end
	guest_wait "$name" 60
	is $? 0 "$name: the guest powers off, and all is given back" || guest_show "$name" 60
	is "$(pinned)" "$before" "$name: no page of it is pinned any more"
}

# The guest does not know that these are behind its IOMMU: its NVMe driver would wait a minute for each.
come_and_go behind ', "viommu": {"enabled": true, "bypass": false}' ', "strategy": "strict"' \
	-eq initcall_blacklist=nvme_init
come_and_go bypass ', "viommu": {"enabled": true, "bypass": true}' ', "viommu": true'
come_and_go iommufd ', "iommu": {"backend": "iommufd"}' ''
come_and_go type1 ', "iommu": {"backend": "type1"}' ', "ioas": "a"'
done_testing
