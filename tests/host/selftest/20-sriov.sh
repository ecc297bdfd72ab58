#!/bin/bash
# testhost: destructive --timeout 400
# Virtual functions: made, isolated, bound to vfio-pci, opened.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) || skip_all "no igb card"
plan 12

ok "7 virtual functions" vfs_create "$pf" 7
mapfile -t vf < <(vfs "$pf")
for v in "${vf[@]}"; do
	is "$(group_size "$v")" 1 "$v is alone in its IOMMU group"
done
ok "one binds to vfio-pci" vfio_bind "${vf[0]}"
ok "its group can be opened" python3 -c '
import os, sys
os.open("/dev/vfio/" + sys.argv[1], os.O_RDWR)' "$(iommu_group "${vf[0]}")"
# shellcheck disable=SC2016 # expanded by the inner shell
ok "so can its device, the iommufd way" sh -c '
exec 3<>/dev/vfio/devices/"$(ls /sys/bus/pci/devices/'"${vf[0]}"'/vfio-dev)"'
echo 0 >"/sys/bus/pci/devices/$pf/sriov_numvfs"
is "$(vfs "$pf" 2>/dev/null | grep -c 0000:)" 0 "they go again"
