#!/bin/bash
# testhost: --profile aw39 --timeout 120 destructive
# An IOMMU of 39 bits: memory of the guest that ends above has no I/O address.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

nvme=$(device 1b36:0010)
vfio_bind "$nvme"
end=$((1 << 39))
is "$(blockers "$nvme" --memory 1G)" "" "memory that ends below: nothing blocks"
like "$(found ok aperture "$nvme" --memory 1G)" "512 GiB" "where I/O addresses end is said"
for kind in iommufd type1; do
	is "$(try "$nvme" $kind 0x200000 $((end - 0x200000)))" ok \
		"$kind: the kernel maps the last that there is"
	like "$(try "$nvme" $kind 0x200000 $end)" "^map E" "$kind: and nothing behind"
done
# The guest's memory has a hole of 1 GiB below 4 GiB.
is "$(found blocker aperture "$nvme" --memory 511G)" "" "511 GiB of memory end just there"
like "$(found blocker aperture "$nvme" --memory 512G)" "39 bits.*=> --memory 523264M or less" \
	"512 GiB do not, and the most that do are named"
like "$(hospes iommu list)" "39 bits of I/O address" "the list says it"
done_testing
