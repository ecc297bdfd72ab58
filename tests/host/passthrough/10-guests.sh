#!/bin/bash
# testhost: --memory 6G --timeout 300 destructive
# A Linux guest drives an NVMe controller and a VF of a NIC itself: through /dev/iommu and through VFIO's
# containers, with 1 and 4 vCPUs, huge pages, address spaces of their own and a shared one, INTx only.
. "$(dirname "$0")/../lib.sh"
destructive

nvme0=$(device 1b36:0010 0) nvme1=$(device 1b36:0010 1) pf=$(device 8086:10c9)
[ -n "$nvme0" ] && [ -n "$nvme1" ] && [ -n "$pf" ] || skip_all "needs two NVMe controllers and an igb"
ok "a VF appears" vfs_create "$pf" 1
vf=$(vfs "$pf")
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
for d in "$nvme0" "$nvme1" "$vf"; do ok "$d is VFIO's" vfio_bind "$d"; done

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
# Each disk holds what was written to it; the NIC, if there is one, reaches the PF.
n=0
for disk in /dev/nvme[0-9]n1; do
	[ -e "$disk" ] || continue
	dd if=/dev/urandom of=/tmp/in bs=64k count=64 2>/dev/null
	dd if=/tmp/in of=$disk bs=64k conv=fsync 2>/dev/null
	echo 3 >/proc/sys/vm/drop_caches
	dd if=$disk of=/tmp/out bs=64k count=64 2>/dev/null
	cmp /tmp/in /tmp/out && n=$((n + 1))
done
echo "disks good: $n"
net=
for d in /sys/bus/pci/drivers/igbvf/*/net/*; do [ -e "$d" ] && net=${d##*/}; done
if [ -n "$net" ]; then
	ip link set "$net" up
	ip addr add 10.9.0.2/24 dev "$net"
	i=0
	until ping -c 1 -W 1 10.9.0.1 >/dev/null || [ $i = 20 ]; do i=$((i + 1)); done
	ping -c 4 -s 1400 10.9.0.1 | grep received
fi
grep -E 'nvme|eth' /proc/interrupts
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

# boot NAME ARG…: its console is in log.
boot() {
	local name=$1
	shift
	guest_start "$name" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" \
		--verbose --cmdline "console=ttyS0 ${append:-}" "$@"
	guest_wait "$name" 100
	is $? 0 "$name: the guest powers off" || guest_show "$name" 60
	log=$(guest_log "$name" | tr -d '\r')
}

boot iommufd --memory 512M --iommu iommufd --passthrough "$nvme0"
like "$log" '^disks good: 1' "iommufd: the disk holds what was written"
like "$log" 'PCI-MSIX.*nvme0q1' "iommufd: by MSI-X"
unlike "$log" 'DMAR|timeout, completion polled|Call Trace' "iommufd: nothing to complain of"

boot type1 --memory 1G --cpus 4 --iommu type1 --passthrough "$nvme0" --passthrough "$vf"
like "$log" '^disks good: 1' "type1, 4 vCPUs: the disk holds what was written"
like "$log" '^4 packets transmitted, 4 packets received' "type1, 4 vCPUs: the VF reaches the PF"

echo 300 >/proc/sys/vm/nr_hugepages
boot huge --memory 512M,backing=hugetlb-2M --cpus 4 --passthrough "$nvme0,ioas=both" \
	--passthrough "$nvme1,ioas=both" --passthrough "$vf"
echo 0 >/proc/sys/vm/nr_hugepages
like "$log" '^disks good: 2' "huge pages, one space for two disks: they hold what was written"
like "$log" '^4 packets transmitted, 4 packets received' "huge pages: the VF reaches the PF"

append=pci=nomsi boot intx --memory 256M --passthrough "$nvme0"
like "$log" '^disks good: 1' "INTx: the disk holds what was written"
like "$log" 'IO-APIC.*nvme0q' "INTx: by the I/O APIC"

# Everything handed in: an ordinary user who can open none of the paths.
cdev=/dev/vfio/devices/$(ls "/sys/bus/pci/devices/$nvme0/vfio-dev")
chmod 755 "$TMP" && chmod 644 "$TMP/initrd" && chmod 666 /dev/kvm
handed_in() {
	exec 5<>"$cdev" 6<>/dev/iommu
	prlimit --memlock=1073741824 setpriv --reuid 65534 --regid 65534 --clear-groups \
		hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --kernel-cache off --verbose \
		--memory 256M --passthrough fd=5,iommufd=6 --cmdline console=ttyS0
}
guest_start fds handed_in
guest_wait fds 100
is $? 0 "by fds, unprivileged: the guest powers off" || guest_show fds 60
like "$(guest_log fds | tr -d '\r')" '^disks good: 1' "by fds, unprivileged: the disk holds what was written"

is "$(pci_driver "$nvme0")" vfio-pci "the device stays bound to vfio-pci"
done_testing
