#!/bin/bash
# testhost: destructive --profile noiommu --timeout 90
# A host without an IOMMU: VFIO's no-IOMMU mode is refused, with the reason and the remedy.
. "$(dirname "$0")/../lib.sh"
destructive
dev=$(device 1b36:0010 1) || skip_all "no second nvme controller"
unsafe=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
[ -w "$unsafe" ] || skip_all "this kernel has no no-IOMMU mode"
plan 4
echo 1 >"$unsafe"
ok "the device binds to vfio-pci without an IOMMU" vfio_bind "$dev"
group=$(find /dev/vfio -name 'noiommu-*' | head -n 1)
like "$group" noiommu "and has a group that translates nothing"
out=$("$HOSPES_BUILD/tests/host/iommu/refused" type1 "$group" "$dev" 2>&1)
is "$?" 0 "it is refused"
like "$out" 'nothing would translate guest addresses; turn the IOMMU on' "with the reason: $out"
