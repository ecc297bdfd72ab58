#!/bin/bash
# testhost: --memory 5G --timeout 300 destructive
# An ordinary user with the device's node, /dev/iommu, /dev/kvm and a limit of locked memory runs a
# guest with an NVMe controller. Take one of them away, and the line says which, and what to type.
. "$(dirname "$0")/lib.sh"
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
with_vfio "$nvme"
cdev=/dev/vfio/devices/$(ls "/sys/bus/pci/devices/$nvme/vfio-dev")
user=65534
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
dd if=/dev/urandom of=/tmp/in bs=64k count=16 2>/dev/null
dd if=/tmp/in of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null
dd if=/dev/nvme0n1 of=/tmp/out bs=64k count=16 iflag=direct 2>/dev/null
cmp /tmp/in /tmp/out && echo "disk good"
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
chmod 755 "$TMP" && chmod 644 "$TMP/initrd"

# as_user MEMLOCK_BYTES CMD…
as_user() {
	local limit=$1
	shift
	prlimit --memlock="$limit:$limit" setpriv --reuid $user --regid $user --clear-groups "$@"
}
grant() {
	for node in "$cdev" /dev/iommu /dev/kvm; do chown root:root "$node" && chmod 600 "$node"; done
	for node in "$@"; do chown $user "$node"; done
	# not by the back door
	chmod 600 "/dev/vfio/$(iommu_group "$nvme")"
}
enough=$((256 << 20))
run() {
	guest_start "$1" as_user "$2" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" \
		--kernel-cache off --memory 128M --passthrough "$nvme" --cmdline 'console=ttyS0 quiet'
	guest_wait "$1" 90
}

grant "$cdev" /dev/iommu /dev/kvm
run all "$enough"
is $? 0 "with all three nodes and the limit, the guest runs and powers off" || guest_show all
like "$(guest_log all | tr -d '\r')" '^disk good' "and its disk works"
out=$(as_user "$enough" hospes device explain "$nvme" --memory 128M 2>&1)
is $? 0 "explain says that it will work" || diag "$out"

# without NAME LIMIT PATTERN NODE…: the run fails with a line that matches, and explain says the same.
without() {
	local name=$1 limit=$2 pattern=$3 out
	shift 3
	grant "$@"
	run missing "$limit"
	is $? 1 "without $name the run fails" || guest_show missing
	like "$(guest_log missing)" "$pattern" "without $name: the line to type"
	unlike "$(guest_log missing)" 'HOSPES-GUEST' "without $name: nothing has started"
	out=$(as_user "$limit" hospes device explain "$nvme" --memory 128M 2>&1)
	is $? 1 "without $name: explain says so before" || diag "$out"
	like "$out" "$pattern" "without $name: with the same line"
}
without "the device's node" "$enough" "setfacl -m u:[^ ]*:rw $cdev" /dev/iommu /dev/kvm
without "/dev/iommu" "$enough" "setfacl -m u:[^ ]*:rw /dev/iommu" "$cdev" /dev/kvm
without "/dev/kvm" "$enough" "(setfacl -m u:[^ ]*:rw|usermod -aG kvm.*)" "$cdev" /dev/iommu
without "locked memory" $((64 << 20)) "(prlimit --pid|--memlock|LimitMEMLOCK|memlock)" "$cdev" /dev/iommu /dev/kvm
grant "$cdev" /dev/iommu /dev/kvm
run again "$enough"
is $? 0 "with everything back it runs again" || guest_show again
host_is_well
done_testing
