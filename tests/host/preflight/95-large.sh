#!/bin/bash
# testhost: --profile large --timeout 300 destructive
# A host of two NUMA nodes with a controller at each, of more interrupt vectors than one guest can have of all:
# what explain says of both, and that memory goes to the node that it names.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

for d in $(lspci -Dn -d 1b36:0010 | cut -d' ' -f1); do
	case $(cat "/sys/bus/pci/devices/$d/numa_node") in 1) far=$d ;; *) near=$d ;; esac
	vfio_bind "$d" || bail "$d does not bind to vfio-pci"
done
[ -n "${far:-}" ] || bail "no controller is at node 1"

# NUMA.
option=$(found ok numa "$far")
like "$option" "^on node 1: '--memory SIZE,numa_node=1' keeps its DMA there" "the node that it is at, and the option"
is "$(found ok numa "$near")" "" "where the host does not know a device's node nothing is said"
# what numa_maps has of the guest's memory, which is the largest that is bound
bound() { awk '/bind/ { print $2 }' "/proc/${guest_pid[$1]}/numa_maps" | sort | uniq -c; }
pages() { awk -v "n=$2" '/bind/ { for (i = 3; i <= NF; i++) if (sub("^N" n "=", "", $i)) s += $i } END { print s + 0 }' \
	"/proc/${guest_pid[$1]}/numa_maps"; }
guest_start far hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--memory 128M,numa_node=1 --passthrough "$far" --cmdline "console=ttyS0 quiet hospes.sh=\"echo here; read line\""
ok "a guest with that option starts" guest_wait_for far '^here' 60 || guest_show far
diag "$(bound far)"
is "$(pages far 0)" 0 "none of its memory is at node 0"
ok "all of it, pinned as it is, at node 1" test "$(pages far 1)" -ge $((128 * 256))
guest_send far go
guest_wait far 30
is $? 0 "it ends" || guest_show far

# Vectors.
like "$(found ok msi "$near")" "^2048 MSI-X vectors; KVM routes 4096" "one has enough of them"
both() { hospes device explain "$near" "$far" | tr -s ' \n' ' '; }
prlimit --pid $$ --nofile=1024:4096
like "$(both)" "BLOCKER files each of the 4096 vectors takes a file descriptor" "and file descriptors"
prlimit --pid $$ --nofile=1024:8192
like "$(both)" "warning msi 2048 MSI-X vectors, and 2048 of the guest's other devices: KVM routes 4096" \
	"both together have too many"
unlike "$(both)" "BLOCKER" "which blocks nothing"
out=$(start "$near" --memory 256M --passthrough "$far")
like "$out" "$far: 2048 MSI-X vectors, and 2048 of the guest's other devices" "a run says so too"
like "$out" '^hello from' "and starts" || diag "$out"
done_testing
