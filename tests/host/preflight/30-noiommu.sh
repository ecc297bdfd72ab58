#!/bin/bash
# testhost: --profile noiommu --timeout 120 destructive
# A host without an IOMMU: nothing can be given, in VFIO's no-IOMMU mode neither.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

nvme=$(device 1b36:0010)
like "$(found blocker iommu "$nvme")" "in no IOMMU group.*firmware" "nothing translates"
not_ok "explain's exit status says it" hospes device explain "$nvme"
not_ok "the driver takes no device so" vfio_bind "$nvme"
list=$(hospes iommu list)
like "$list" "^No IOMMU" "the list says it"
like "$list" "$nvme .*not translated" "for each device"

echo Y >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
vfio_bind "$nvme"
is "$(pci_driver "$nvme")" vfio-pci "no-IOMMU mode: vfio-pci takes it"
like "$(found blocker iommu "$nvme")" "no-IOMMU mode.*hospes refuses it.*enable_unsafe_noiommu_mode" \
	"hospes does not"
like "$(found blocker kernel "$nvme" --iommu iommufd)" "no node in /dev/vfio/devices.* => iommu=type1" \
	"and has no node that iommufd needs"
done_testing
