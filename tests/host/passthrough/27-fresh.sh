#!/bin/bash
# testhost: --timeout 200 destructive
# What was left in a device before it was opened is not there when the guest gets it: the kernel resets it when
# it is opened, which hospes relies on instead of resetting it once more.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
vfio_bind "$nvme" || bail "$nvme does not bind to vfio-pci"
plan 6

# register [VALUE]: the controller's interrupt mask (NVM Express 2.0, 3.1.3.3), to which bits can be added.
register() {
	python3 - "/sys/bus/pci/devices/$nvme/resource0" "$@" <<'PYTHON'
import mmap, os, struct, sys
bar = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)
if len(sys.argv) > 2:
    bar[0xc:0x10] = struct.pack("<I", int(sys.argv[2], 0))
print("%#x" % struct.unpack("<I", bar[0xc:0x10]))
PYTHON
}

# vfio-pci lets a device that nobody has open sleep (D3hot), where it has no registers.
echo on >"/sys/bus/pci/devices/$nvme/power/control"
for kind in iommufd type1; do
	setpci -s "$nvme" COMMAND=2:2
	is "$(register 0x5)" 0x5 "$kind: a register keeps what is written to it"
	# Its driver stays out.
	guest_start "$kind" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
		--memory 128M --iommu "$kind" --passthrough "$nvme" \
		--cmdline 'console=ttyS0 quiet initcall_blacklist=nvme_init hospes.sh="echo here; cat"'
	ok "$kind: the guest is up" guest_wait_for "$kind" '^here' 60 || guest_show "$kind"
	is "$(register)" 0x0 "$kind: the register is as after a reset"
	guest_kill "$kind"
done
