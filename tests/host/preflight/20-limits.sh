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
export -f findings found blockers start
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
like "$(user_found unlimited ok permissions "$nvme")" "may open all" "and that is said"
mv "$cdev" /dev/vfio/away
like "$(found blocker permissions "$nvme")" "$cdev is not here => in a container: hand the node in" \
	"a node that is not here"
out=$(start "$nvme" --memory 256M)
is $? 1 "run does not start then"
ok "and says the same" same "$out" "$nvme" "$(found blocker permissions "$nvme")" || diag "$out"
mv /dev/vfio/away "$cdev"
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
like "$(found ok memlock "$nvme" --memory 512M)" "CAP_IPC_LOCK" "root has the right to lock memory"
like "$(user_found unlimited ok memlock "$nvme" --memory 512M)" "unlimited" "a user may have no limit"
like "$(user_found $((256 * MiB)) ok memlock "$nvme" --memory 128M)" \
	"128 MiB to be pinned, RLIMIT_MEMLOCK is 256 MiB" "or one that is high enough"
like "$(user_found $((256 * MiB)) ok memlock "$nvme")" "256 MiB .*: the guest's memory must be less" \
	"for a guest whose memory is not known"
# soft COMMAND…: likewise, with a limit of 256 MiB that this user may raise to 1 GiB.
soft() {
	prlimit --memlock=$((256 * MiB)):$((1024 * MiB)) setpriv --reuid 65534 --regid 65534 --clear-groups \
		--inh-caps=-all --bounding-set=-all bash -c "$1" - "${@:2}"
}
# shellcheck disable=SC2016
like "$(soft 'found "$@"' blocker memlock "$nvme" --memory 512M)" "=> ulimit -l 524288$" \
	"a limit that the user may raise"
# shellcheck disable=SC2016
like "$(soft 'ulimit -l 524288; start "$@"' "$nvme" --memory 512M)" '^hello from' "the remedy works"
is "$(prlimit --memlock=$((64 * MiB)) bash -c 'blockers "$@"' - "$nvme" --memory 512M)" "" \
	"root is not limited"
is "$(prlimit --memlock=$((64 * MiB)) python3 "$(dirname "$0")/vfio_try.py" "$nvme" iommufd $((512 * MiB)))" \
	ok "nor by the kernel"
like "$(found blocker memory "$nvme" --memory 64G)" "host has .* => --memory" \
	"more memory than the host has"
kib() { awk -v "k=$1:" '$1 == k { print $2 }' /proc/meminfo; }
like "$(found warning memory "$nvme" --memory $(($(kib MemTotal) / 1024))M)" \
	"the host has .* available now => --memory .* or less, or free some first" "more than is free"
like "$(found ok memory "$nvme" --memory 128M)" "128 MiB of the guest's memory is pinned" "and less"
like "$(found blocker memory "$nvme" --memory 4000000G | head -n 1)" "=> --memory with a size that fits" \
	"more than a guest's addresses reach"

# Huge pages, of which each sort of memory has a setting of its own.
thp=/sys/kernel/mm/transparent_hugepage
chosen() { sed 's/.*\[//; s/\].*//' "$thp/$1"; }
enabled=$(chosen enabled) shmem_enabled=$(chosen shmem_enabled)
echo never >$thp/enabled
like "$(found warning pages "$nvme")" "pages of 4 KiB, .*$thp/enabled is 'never' => echo madvise > $thp/enabled" \
	"no huge pages for anonymous memory"
like "$(start "$nvme" --memory 256M)" "pages of 4 KiB" "run says it, and starts"
echo madvise >$thp/enabled
is "$(found warning pages "$nvme")" "" "the remedy works"
for word in never deny; do
	echo $word >$thp/shmem_enabled
	like "$(found warning pages "$nvme" --backing memfd)" \
		"a memfd, .*$thp/shmem_enabled is '$word' => echo advise > $thp/shmem_enabled" "none for a memfd: $word"
done
is "$(found warning pages "$nvme")$(found warning pages "$nvme" --backing hugetlb-2M)" "" "which others do not mind"
echo advise >$thp/shmem_enabled
is "$(found warning pages "$nvme" --backing memfd)" "" "the remedy works for a memfd"
echo "$enabled" >$thp/enabled
echo "$shmem_enabled" >$thp/shmem_enabled

# The number of mappings.
limit=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit
echo 4 >$limit
is "$(blockers "$nvme" --memory 1G --iommu type1)" mappings "type1: too many mappings"
is "$(blockers "$nvme" --memory 1G --iommu iommufd)" "" "iommufd has no such limit"
like "$(found blocker mappings "$nvme" --memory 1G --iommu type1)" \
	"allows 4 mappings .*; up to 18 are needed => echo 65535 > $limit, or iommu=iommufd" "how many, and where to raise it"
echo 65535 >$limit
is "$(blockers "$nvme" --memory 1G --iommu type1)" "" "type1: the limit as it was"
like "$(found ok mappings "$nvme" --memory 1G --iommu type1)" "18 at most of the 65535 that type1 allows" "and what is needed of it"

# File descriptors for vectors.
few() { prlimit --nofile="$1:$1" bash -c "$2" - "${@:3}"; }
# shellcheck disable=SC2016
{
	n=$(few 1000 'found "$@"' ok msi "$nvme" | grep -o '^[0-9]*')
	few=$(few $((n + 30)) 'found "$@"' blocker files "$nvme")
	like "$few" "each of the $n vectors .*RLIMIT_NOFILE is $((n + 30)) => sudo prlimit .*--nofile=.*LimitNOFILE=" \
		"too few file descriptors"
	out=$(few $((n + 30)) 'start "$@"' "$nvme" --memory 256M)
	is $? 1 "run does not start with these"
	ok "and says the same" same "$out" "$nvme" "$few" || diag "$out"
	like "$(few $((n + 31)) 'found "$@"' warning files "$nvme")" "each of the $n vectors" "just enough: a warning"
	# Each spare port has a vector too; the smallest machine has none.
	like "$(few $((n + 31)) 'start "$@"' "$nvme" --memory 256M --root-ports 0)" '^hello from' "with which run starts"
	like "$(few $((n + 33)) 'found "$@"' warning files "$nvme" --iommu type1)" "each of the $n vectors" "with type1 likewise"
	like "$(few $((n + 33)) 'start "$@"' "$nvme" --memory 256M --iommu type1 --root-ports 0)" '^hello from' "run starts with that too"
	is "$(few $((n + 128)) 'found "$@"' warning files "$nvme")" "" "enough"
	is "$(prlimit --nofile=$((n + 10)):4096 bash -c 'found "$@"' - blocker files "$nvme")" "" \
		"a limit that the user may raise is raised"
	like "$(prlimit --nofile=$((n + 10)):4096 bash -c 'start "$@"' - "$nvme" --memory 256M)" '^hello from' "and run starts"
}

# What an ordinary user does not see of interrupts.
edu=$(device 1234:11e8) pf=$(device 8086:10c9)
vfs_create "$pf" 1
like "$(user_found unlimited ok msi "$(vfs "$pf")")" "only root may read its capabilities" "vectors of a VF"
like "$(user_found unlimited warning msi "$edu")" "INTx; whether it has MSI only root may see => sudo hospes device explain $edu" \
	"MSI of a device that has INTx"

# A kernel without iommufd is one without its node.
mv /dev/iommu /dev/not-iommu
like "$(found ok kernel "$nvme")" "type1" "without /dev/iommu: containers"
is "$(blockers "$nvme" --iommu iommufd)" "kernel" "and iommufd on request is refused"
like "$(found blocker kernel "$nvme" --iommu iommufd)" "no /dev/iommu .* => modprobe iommufd" "with the remedy"
mv /dev/vfio/vfio /dev/vfio/not-vfio
like "$(found blocker kernel "$nvme")" "neither .* => modprobe" "without either: nothing works"
mv /dev/not-iommu /dev/iommu
like "$(found blocker kernel "$nvme" --iommu type1)" "no /dev/vfio/vfio .* => modprobe vfio_iommu_type1" \
	"type1 on request"
mv /dev/vfio/not-vfio /dev/vfio/vfio
is "$(blockers "$nvme")" "" "and all is well again"
done_testing
