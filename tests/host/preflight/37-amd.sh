#!/bin/bash
# testhost: --profile amd --timeout 120 destructive
# AMD's IOMMU: its own reserved range.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

nvme=$(device 1b36:0010)
vfio_bind "$nvme" || bail "cannot bind to vfio-pci"
is "$(blockers "$nvme")" "" "nothing blocks"
like "$(found ok iommu "$nvme")" "^behind an IOMMU" "the IOMMU is there"
like "$(found ok reserved "$nvme")" "0xfd00000000-0xffffffffff is reserved: the guest's memory is laid out around it" \
	"addresses that HyperTransport has for itself"
for kind in iommufd type1; do
	like "$(try "$nvme" $kind 0x200000 0xfd00000000)" "^map E" "$kind: the kernel maps nothing there"
	is "$(try "$nvme" $kind 0x200000 0xfcffe00000)" ok "$kind: and the last below it"
done
done_testing
