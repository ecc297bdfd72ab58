#!/bin/bash
# testhost: --cpus 2 --memory 6G --timeout 900
# Where guest memory comes from: huge pages of both sizes (refused with the remedy, and booted from once
# that was done), memory touched in advance, a NUMA node.
. "$(dirname "$0")/../lib.sh"

pages=/sys/kernel/mm/hugepages/hugepages-2048kB
giants=/sys/kernel/mm/hugepages/hugepages-1048576kB
MIB=256
small=(--kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD"
	--cmdline 'console=ttyS0 quiet hospes.sh="echo listening; sleep 1000"')

# start NAME MEMORY: a guest that waits.
start() {
	guest_start "$1" hospes run "${small[@]}" --memory "$2"
	ok "$1: the guest boots" guest_wait_for "$1" '^listening' 90 || guest_show "$1"
}
# stop NAME: by the power button.
stop() {
	kill -TERM "${guest_pid[$1]}"
	guest_wait "$1" 60
	is $? 0 "$1: it powers off" || guest_show "$1"
}
# mapped NAME KIB: MiB of its memory that lie in pages of that size, by its own account.
mapped() {
	awk -v want="$2" '/^Size:/ { size = $2 } /^KernelPageSize:/ && $2 == want { sum += size }
		END { print sum / 1024 }' "/proc/${guest_pid[$1]}/smaps"
}
resident() { awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/${guest_pid[$1]}/status"; }

# Not there yet: what is missing, and the command that mends it.
echo 0 >"$pages/nr_hugepages"
out=$(hospes run "${small[@]}" --memory "${MIB}M,backing=hugetlb-2M" 2>&1 </dev/null)
is $? 1 "without huge pages it is refused"
like "$out" "needs 128 huge pages of 2 MiB, 0 are free, 128 are missing" "the message says how many are missing"
is "$(grep -c . <<<"$out")" 1 "in one line"
fix=$(sed -n 's/.*as root: \(sysctl [a-z_.]*=[0-9]*\).*/\1/p' <<<"$out")
ok "the command it gives works ($fix)" eval "$fix"
is "$(cat "$pages/free_hugepages")" 128 "there are as many as were missing"

start hugetlb "${MIB}M,backing=hugetlb-2M,prefault=on"
is "$(mapped hugetlb 2048)" "$MIB" "hugetlb: all of its memory is huge pages"
is "$(cat "$pages/free_hugepages")" 0 "hugetlb: touched in advance, all of them are used"
out=$(hospes run "${small[@]}" --memory "${MIB}M,backing=hugetlb-2M" 2>&1 </dev/null)
is $? 1 "hugetlb: a second guest finds none left"
like "$out" "as root: sysctl vm.nr_hugepages=256" "hugetlb: taken pages are counted in"
stop hugetlb
is "$(cat "$pages/free_hugepages")" 128 "hugetlb: all are free again"

echo 0 >"$pages/nr_hugepages"

# Gigantic pages need contiguous memory; Linux may not find any more of it.
echo 1 >"$giants/nr_hugepages" 2>/dev/null
if [ "$(cat "$giants/nr_hugepages" 2>/dev/null)" = 1 ]; then
	start giant 1G,backing=hugetlb-1G
	is "$(mapped giant 1048576)" 1024 "giant: its memory is one page of 1 GiB"
	stop giant
	echo 0 >"$giants/nr_hugepages"
else
	skip "a page of 1 GiB" "this kernel finds none free"
fi

for backing in anonymous memfd; do
	start "$backing" "${MIB}M,backing=$backing,prefault=on,numa_node=0"
	ok "$backing: all of it is resident when it was touched in advance ($(resident "$backing") MiB)" \
		test "$(resident "$backing")" -ge "$MIB"
	if [ -e "/proc/${guest_pid[$backing]}/numa_maps" ]; then
		like "$(cat "/proc/${guest_pid[$backing]}/numa_maps")" 'bind(=[a-z]+)?:0' \
			"$backing: it is bound to node 0"
	fi
	stop "$backing"
done
start lazy "${MIB}M"
ok "otherwise it is not ($(resident lazy) MiB)" test "$(resident lazy)" -lt "$MIB"
stop lazy

out=$(hospes run "${small[@]}" --memory "${MIB}M,numa_node=7" 2>&1 </dev/null)
is $? 1 "a node that is not there is refused"
like "$out" 'NUMA node 7' "and named"
done_testing
