#!/bin/bash
# testhost: destructive --timeout 400
# hospes iommu bench on a real device: refused while it is not bound, then figures that make sense.
. "$(dirname "$0")/../lib.sh"
destructive
edu=$(device 1234:11e8) || skip_all "no edu device"
bench() { timeout 200 hospes iommu bench "$@" >"$TMP/out" 2>"$TMP/err"; }

status=0; bench --device "$edu" || status=$?
is "$status" 1 "a device that is not bound is refused"
like "$(cat "$TMP/err")" "$edu: bound to .*, not vfio-pci; run 'hospes vf bind $edu'" "with the line to type"
status=0; bench --device 0000:7f:1f.7 || status=$?
is "$status" 1 "and so is one that does not exist"
like "$(cat "$TMP/err")" "0000:7f:1f.7" "by name"
status=0; bench --device "$edu" --backend vfio || status=$?
is "$status" 2 "and a backend that does not exist is usage"
like "$(cat "$TMP/err")" "vfio" "by name too"
status=0; bench || status=$?
is "$status" 2 "without --device it is usage"

vfio_bind "$edu" || bail "cannot bind $edu to vfio-pci"
status=0; bench --device "$edu" --quick --memory 16M --json || status=$?
is "$status" 0 "quick, to 16 MiB, with both backends"
diag "$(cat "$TMP/err")"
cp "$TMP/out" "$TMP/json"
has() { ok "$1" jq -e "$2" "$TMP/json"; }
has "a result of iommufd and one of type1" '[.results[].backend] == ["iommufd", "type1"]'
has "4 KiB to 16 MiB with either" \
	'all(.results[]; [.sizes[] | select(.backing == "4 KiB pages").bytes] == [4096, 65536, 1048576, 16777216])'
has "every map and unmap costs more than an empty system call" \
	'all(.results[]; .floor_ns as $f | all(.sizes[]; .map_ns > $f and .unmap_ns > $f))'
has "16 MiB of small pages cost more than 64 KiB, and those more than 4 KiB" \
	'all(.results[]; [.sizes[] | select(.backing == "4 KiB pages").map_ns] | .[3] > .[1] and .[1] > .[0])'
has "pinning is a part of mapping" \
	'all(.results[0].sizes[] | select(.bytes >= 1048576 and .backing == "4 KiB pages"); .pinning_ns > 0 and .pinning_ns < .map_ns)'
has "scattered pages cost more than contiguous ones" \
	'all(.results[]; all(.batches[] | select(.pages >= 16); .scattered_map_ns > .contiguous_map_ns))'
has "unmapping each costs more than all at once" \
	'all(.results[]; all(.batches[] | select(.pages >= 64); .scattered_unmap_each_ns > .scattered_unmap_once_ns))'
has "threads" 'all(.results[]; (.threads | length) >= 1 and all(.threads[]; .map_unmap_ns > 0))'
diag "$(jq -c '.results[] | {backend, floor_ns, sizes: [.sizes[] | [.backing, .bytes, .map_ns, .unmap_ns, .copy_ns]]}' "$TMP/json")"

status=0; bench --device "$edu" --quick --memory 4M --backend iommufd || status=$?
is "$status" 0 "as a table"
like "$(cat "$TMP/out")" "iommufd: microseconds" "with a heading"
unlike "$(cat "$TMP/out")" "type1:" "of the one backend asked for"
diag "$(cat "$TMP/out")"
is "$(awk '/^nr_foll_pin_acquired/ {a=$2} /^nr_foll_pin_released/ {r=$2} END {print a-r}' \
	<(cat /proc/sys/vm/stat_refresh; cat /proc/vmstat))" 0 "every pin is given back"
done_testing
