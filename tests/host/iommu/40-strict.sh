#!/bin/bash
# testhost: destructive --timeout 900
# The strategy 'strict' with both backends on a real device: what the guest maps is reached, what it
# unmaps is not, each time; and direct and strict in turn, some 100 times while one DMA is under way.
# HOSPES_LONG=1: ten times as much.
. "$(dirname "$0")/../lib.sh"
destructive
edu=$(device 1234:11e8) || skip_all "no edu device"
vfio_bind "$edu" || bail "cannot bind $edu to vfio-pci"
rounds=$(times 100 1000) switches=$(times 1000 10000)

for kind in iommufd type1; do
	status=0
	"$HOSPES_BUILD/tests/host/iommu/strict" "$kind" "$edu" "$rounds" "$switches" \
		>"$TMP/$kind" 2>&1 || status=$?
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
