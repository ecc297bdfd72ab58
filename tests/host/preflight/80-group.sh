#!/bin/bash
# testhost: --profile functions --timeout 200 destructive
# A group of two functions of which the host uses one: neither can be given away until both are VFIO's.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

a=$(device 8086:100e 0) b=$(device 8086:100e 1)
is "$(iommu_group "$a") $(group_size "$a")" "$(iommu_group "$b") 2" "two functions in one group"
is "$(pci_driver "$b")" e1000 "the host has a driver for them"
vfio_bind "$a" || bail "cannot bind to vfio-pci"
is "$(blockers "$a")" group "one alone: the group blocks"
like "$(found blocker group "$a")" "$b.*e1000.* => .*hospes vf bind $b" "who it is is named, with the line that helps"
refused "$a" group
hospes vf bind "$b" >/dev/null
is "$(blockers "$a")" "" "with both VFIO's nothing blocks"
like "$(start "$a" --memory 256M)" '^hello from' "and run starts a guest"
done_testing
