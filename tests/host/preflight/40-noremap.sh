#!/bin/bash
# testhost: --profile noremap --timeout 120 destructive
# A host that does not remap interrupts: the kernel refuses, unless allow_unsafe_interrupts is set.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

nvme=$(device 1b36:0010)
vfio_bind "$nvme"
for kind in iommufd type1; do
	case $kind in iommufd) module=iommufd ;; type1) module=vfio_iommu_type1 ;; esac
	allow=/sys/module/$module/parameters/allow_unsafe_interrupts
	is "$(blockers "$nvme" --iommu $kind)" interrupts "$kind: interrupts block"
	like "$(found blocker interrupts "$nvme" --iommu $kind)" "echo Y > $allow" \
		"$kind: with the remedy"
	like "$(try "$nvme" $kind)" "^(bind|attach) EPERM" "$kind: the kernel refuses it so"
	echo Y >$allow
	is "$(blockers "$nvme" --iommu $kind)" "" "$kind: allowed: nothing blocks"
	like "$(found warning interrupts "$nvme" --iommu $kind)" "can raise any interrupt" \
		"$kind: but the consequence is said"
	is "$(try "$nvme" $kind)" ok "$kind: the kernel gives it"
	echo N >$allow
done
like "$(hospes iommu list)" "$nvme .*interrupts only .*not remapped" "the list says it"
done_testing
