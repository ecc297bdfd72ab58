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
echo "$b" >"/sys/bus/pci/devices/$b/driver/unbind"
like "$(found ok group "$a")" "$b is in its group .*, without a driver: only one VM" "a member that nobody uses is harmless"
is "$(blockers "$a") $(try "$a" iommufd 0x200000)" " ok" "for the kernel too"
like "$(found warning reset "$a")" "cannot be reset without $b.* => hospes vf bind $b" "nor can it be reset alone"
hospes vf bind "$b" >/dev/null
is "$(blockers "$a")" "" "with both VFIO's nothing blocks"
like "$(start "$a" --memory 256M)" '^hello from' "and run starts a guest"
like "$(found ok group "$a")" "$b is in its group .*, bound to vfio-pci: only one VM" "who can have them is said"
like "$(found ok reset "$a")" "together with the 1 other function of its bus" "and how they are reset"

# A bridge in the group: conventional PCI has no addresses of who asks, so that what is behind shares one.
old=$(device 8086:100e 2) bridge=$(device 1b36:000e)
is "$(iommu_group "$old")" "$(iommu_group "$bridge")" "a card of conventional PCI is in its bridge's group"
like "$(found ok group "$old")" "$bridge is in its group .*: a bridge, which stays" "the bridge stays"
vfio_bind "$old" || bail "$old does not bind to vfio-pci"
is "$(blockers "$old")" "" "nothing blocks"
like "$(start "$old" --memory 256M)" '^hello from' "and run starts a guest with it"
done_testing
