#!/bin/bash
# testhost: destructive --timeout 240
# Address spaces with both backends on real devices: what map and unmap answer, where a device's DMA
# gets to and where not, two spaces and two devices, guest memory that comes and goes, limits.
. "$(dirname "$0")/../lib.sh"
destructive
edu=$(device 1234:11e8) || skip_all "no edu device"
other=$(device 1b36:0010 1) || skip_all "no second nvme controller"
for dev in "$edu" "$other"; do
	vfio_bind "$dev" || bail "cannot bind $dev to vfio-pci"
done

for kind in iommufd type1; do
	status=0
	"$HOSPES_BUILD/tests/host/iommu/spaces" "$kind" "$edu" "$other" >"$TMP/$kind" 2>&1 || status=$?
	while IFS= read -r line; do
		case $line in
		"ok "*) pass "$kind: ${line#ok * - }" ;;
		"not ok "*) fail "$kind: ${line#not ok * - }" ;;
		*) diag "${line#\# }" ;;
		esac
	done <"$TMP/$kind"
	is "$status" 0 "$kind: the program ends well"
done
done_testing
