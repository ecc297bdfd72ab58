#!/bin/bash
# testhost: --profile amd --append amd_iommu=off --timeout 120 destructive
# AMD's IOMMU, switched off on the kernel's command line.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

nvme=$(device 1b36:0010)
like "$(found blocker iommu "$nvme")" "in no IOMMU group.* => .*does not use the IOMMU: remove 'amd_iommu=off' from its command line" \
	"the option that has to go is named"
not_ok "the driver takes no device so" vfio_bind "$nvme"
done_testing
