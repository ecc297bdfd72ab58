#!/bin/bash
# testhost: --timeout 200 destructive
# Rights and limits of an ordinary user, one at a time, and what the kernel says at each.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "rearranges the emulated host"

nvme=$(device 1b36:0010)
vfio_bind "$nvme"
cdev=/dev/vfio/devices/$(basename /sys/bus/pci/devices/"$nvme"/vfio-dev/vfio*)
group=/dev/vfio/$(iommu_group "$nvme")
MiB=$((1 << 20))

# as_user LIMIT CMD…: with nobody's rights, and RLIMIT_MEMLOCK of that many bytes.
as_user() {
	local limit=$1
	shift
	prlimit --memlock="$limit:$limit" setpriv --reuid 65534 --regid 65534 --clear-groups \
		--inh-caps=-all --bounding-set=-all "$@"
}
export -f found blockers start
user_found() { as_user "$1" bash -c 'found "$@"' - "${@:2}"; }
user_start() { as_user "$1" bash -c 'start "$@"' - "${@:2}"; }
user_blockers() { as_user "$1" bash -c 'blockers "$@"' - "${@:2}"; }

# Permissions.
# Where the container may be opened and /dev/iommu not, type1 is chosen.
chmod 600 "$cdev" /dev/iommu /dev/kvm /dev/vfio/vfio
is "$(user_blockers unlimited "$nvme")" "permissions permissions permissions" \
	"three nodes that the user may not open"
like "$(user_found unlimited blocker permissions "$nvme")" \
	"nobody may not open /dev/kvm: Permission denied => sudo setfacl -m u:nobody:rw /dev/kvm" \
	"each with its line"
chmod 666 /dev/kvm /dev/iommu
like "$(user_found unlimited blocker permissions "$nvme")" "$cdev" "the device's own"
is "$(as_user unlimited python3 "$(dirname "$0")/vfio_try.py" "$nvme" iommufd)" "open EACCES" \
	"the kernel refuses it so"
chmod 666 "$cdev"
is "$(user_blockers unlimited "$nvme" --memory 512M)" "" "all may be opened: nothing blocks"
is "$(as_user unlimited python3 "$(dirname "$0")/vfio_try.py" "$nvme" iommufd $((512 * MiB)))" ok \
	"the kernel gives it"

# Locked memory.
for kind in iommufd type1; do
	chmod 666 "$group" /dev/vfio/vfio
	is "$(user_blockers $((256 * MiB)) "$nvme" --memory 256M --iommu $kind)" "" \
		"$kind: as much as may be locked"
	is "$(as_user $((256 * MiB)) python3 "$(dirname "$0")/vfio_try.py" "$nvme" $kind $((256 * MiB)))" ok \
		"$kind: the kernel pins it"
	is "$(user_blockers $((256 * MiB)) "$nvme" --memory 512M --iommu $kind)" memlock \
		"$kind: more than may be locked"
	is "$(as_user $((256 * MiB)) python3 "$(dirname "$0")/vfio_try.py" "$nvme" $kind $((512 * MiB)))" \
		"map ENOMEM" "$kind: the kernel refuses it so"
done
like "$(user_found $((256 * MiB)) blocker memlock "$nvme" --memory 512M)" \
	"512 MiB to be pinned, RLIMIT_MEMLOCK is 256 MiB .*prlimit.*--memlock=536870912.*limits.conf.*LimitMEMLOCK=524288K" \
	"with the lines for now, for users and for services"
out=$(user_start $((256 * MiB)) "$nvme" --memory 512M)
is $? 1 "run does not start with that"
ok "and says the same" same "$out" "$nvme" \
	"$(user_found $((256 * MiB)) blocker memlock "$nvme" --memory 512M)" || diag "$out"
out=$(user_start $((256 * MiB)) "$nvme" --memory 256M)
like "$out" '^hello from' "with as much as may be locked it does" || diag "$out"
is "$(prlimit --memlock=$((64 * MiB)) bash -c 'blockers "$@"' - "$nvme" --memory 512M)" "" \
	"root is not limited"
is "$(prlimit --memlock=$((64 * MiB)) python3 "$(dirname "$0")/vfio_try.py" "$nvme" iommufd $((512 * MiB)))" \
	ok "nor by the kernel"
like "$(found blocker memory "$nvme" --memory 64G)" "host has .* => --memory" \
	"more memory than the host has"

# The number of mappings.
limit=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit
echo 4 >$limit
is "$(blockers "$nvme" --memory 1G --iommu type1)" mappings "type1: too many mappings"
is "$(blockers "$nvme" --memory 1G --iommu iommufd)" "" "iommufd has no such limit"
echo 65535 >$limit
is "$(blockers "$nvme" --memory 1G --iommu type1)" "" "type1: the limit as it was"

# File descriptors for vectors.
like "$(prlimit --nofile=40:40 bash -c 'found "$@"' - warning files "$nvme")" "ulimit -n" \
	"too few file descriptors"

# A kernel without iommufd is one without its node.
mv /dev/iommu /dev/not-iommu
like "$(found ok kernel "$nvme")" "type1" "without /dev/iommu: containers"
is "$(blockers "$nvme" --iommu iommufd)" "kernel" "and iommufd on request is refused"
mv /dev/vfio/vfio /dev/vfio/not-vfio
like "$(found blocker kernel "$nvme")" "neither .* => modprobe" "without either: nothing works"
mv /dev/vfio/not-vfio /dev/vfio/vfio
mv /dev/not-iommu /dev/iommu
is "$(blockers "$nvme")" "" "and all is well again"
done_testing
