#!/bin/bash
# testhost: destructive --timeout 120
# Every system call that builds an address space fails in its turn: the error is said, nothing stays
# open, and the device is free for the next.
. "$(dirname "$0")/../lib.sh"
destructive
dev=$(device 1b36:0010 1) || skip_all "no second nvme controller"
vfio_bind "$dev" || bail "cannot bind $dev to vfio-pci"

for kind in iommufd type1; do
	status=0
	"$HOSPES_BUILD/tests/host/iommu/denied" "$kind" "$dev" >"$TMP/$kind" 2>&1 || status=$?
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
