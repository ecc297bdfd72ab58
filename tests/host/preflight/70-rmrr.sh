#!/bin/bash
# testhost: --profile rmrr --timeout 200 destructive
# A device for which the firmware keeps a range mapped (RMRR): the kernel gives it to nobody.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

free=$(device 1b36:0010 0) kept=$(device 1b36:0010 1)
vfio_bind "$free" && vfio_bind "$kept" || bail "cannot bind to vfio-pci"
like "$(cat "/sys/bus/pci/devices/$kept/iommu_group/reserved_regions")" '^0x0*fffc0000 0x0*fffc0fff direct$' \
	"the kernel has the firmware's range"
is "$(blockers "$kept")" reserved "it alone blocks"
like "$(found blocker reserved "$kept")" "0xfffc0000-0xfffc0fff .*RMRR.* => .*firmware" \
	"the range is named, and where to look for the remedy"
refused "$kept" reserved
is "$(blockers "$free")" "" "its neighbour is free"
like "$(start "$free" --memory 256M)" '^hello from' "and goes to a guest"

# A reset that the firmware has the code for.
edu=$(device 1234:11e8)
is "$(cat "/sys/bus/pci/devices/$edu/reset_method")" "acpi bus" "the kernel has a reset of the firmware's"
like "$(found ok reset "$edu")" "^by a method of its own, or of the firmware" "and explain"
vfio_bind "$edu" || bail "cannot bind to vfio-pci"
like "$(start "$edu" --memory 256M)" '^hello from' "with which a guest starts"
done_testing
