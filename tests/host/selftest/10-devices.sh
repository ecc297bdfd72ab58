#!/bin/bash
# testhost: --timeout 300
# What the test host promises: the devices, their isolation, the artefacts, the monitor.
. "$(dirname "$0")/../lib.sh"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"
plan 20

# Opens what a VMM opens first: KVM's API version is 12.
ok "/dev/kvm works" python3 -c '
import fcntl, os
assert fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xAE00) == 12'
ok "/dev/iommu opens" python3 -c 'import os; os.open("/dev/iommu", os.O_RDWR)'
ok "/dev/net/tun opens" python3 -c 'import os; os.open("/dev/net/tun", os.O_RDWR)'
ok "/dev/vhost-net opens" python3 -c 'import os; os.open("/dev/vhost-net", os.O_RDWR)'

pf=$(device 8086:10c9)
is "$(pci_driver "$pf")" igb "an igb with its driver"
is "$(cat "/sys/bus/pci/devices/$pf/sriov_totalvfs")" 7 "the igb can have 7 virtual functions"
is "$(group_size "$pf")" 1 "the igb is alone in its IOMMU group"
for n in 0 1; do
	dev=$(device 1b36:0010 "$n")
	is "$(pci_driver "$dev")" nvme "nvme controller $n with its driver"
	is "$(group_size "$dev")" 1 "nvme controller $n is alone in its IOMMU group"
done
ok "two nvme disks" test -b /dev/nvme0n1 -a -b /dev/nvme1n1
dev=$(device 1234:11e8)
is "$(group_size "$dev")" 1 "an edu device, alone in its IOMMU group"
ok "interrupt remapping is on" sh -c 'dmesg | grep -q "DMAR-IR: Enabled IRQ remapping"'

for name in HOSPES_GUEST_BZIMAGE HOSPES_GUEST_VMLINUX HOSPES_GUEST_INITRD HOSPES_GUEST_DISK \
	HOSPES_GUEST_BZIMAGE_XZ HOSPES_GUEST_BZIMAGE_ZSTD HOSPES_GUEST_BZIMAGE_LZ4 \
	HOSPES_DEBIAN_BZIMAGE HOSPES_DEBIAN_INITRD; do
	[ -s "${!name}" ] || diag "$name is '${!name}'"
done | grep . && fail "the guest artefacts are there" || pass "the guest artefacts are there"
is "$(head -c 4 "$HOSPES_GUEST_VMLINUX" | tail -c 3)" ELF "the vmlinux is an ELF"

like "$(l0 info version)" '^10\.' "l0 reaches QEMU's monitor"
not_ok "l0 fails when the monitor refuses" l0 no-such-command
l0 device_del nvme1
ok "a device removed with l0 goes away" retry 20 test ! -e /dev/nvme1n1
is "$(readlink -f "$0" | grep -c ^/hospes/src)" 1 "the script is seen where the source tree is"
