#!/bin/bash
# testhost: --memory 5G --timeout 300 destructive
# A guest makes edu do DMA to memory that is not its own: outside its space, of another VM, of hospes,
# after its machine was killed. Nothing changes, the host's log and hospes's tell it, the other VM goes on.
. "$(dirname "$0")/lib.sh"
edu=$(device 1234:11e8) || skip_all "no edu device"
with_vfio "$edu"

attackers
# refused NAME write|read ADDR WHOSE: made until the kernel tells it, since it tells few in five seconds.
refused() {
	local name=$1 how=$2 page record fault=
	page=$(printf '%x' $(($3 & ~4095)))
	# With the direction: the same page may have been attacked in the other before.
	record="DMA $how.*${edu#0000:}.*fault addr 0x$page "
	for _ in 1 2 3 4; do
		say "$name" "$how $3" "^(wrote|read) 0x" >/dev/null || break
		retry 4 sh -c "dmesg | grep -qi '$record'" && break
	done
	fault=$(dmesg | grep -i "$record" | tail -n 1)
	like "$fault" . "$4, $how: the host's log has the fault"
	ok "$4, $how: hospes says so, with device and address" \
		guest_wait_for "$name" "DMA fault: $how at iova 0x$page by $edu: .*" 10
}

start neighbour --memory 128M
say neighbour 'canary neighbour of the attacker' '^canary at' >/dev/null
start attacker --memory 96M --passthrough "$edu"
own=$(say attacker 'canary its own' '^canary at' | cut -d' ' -f3)
say attacker "write $own" '^wrote' >/dev/null
like "$(say attacker look '^page ')" '^page changed' "the attack works on the guest's own memory ($own)"
say attacker 'canary secrets' '^canary at' >/dev/null
say attacker "read $own" '^read' >/dev/null
like "$(say attacker bytes '^buffer ')" '^buffer 7365637265747320' "and reads it"

refused attacker write 0xc000000 "outside the space"
read -r hva hpa < <(memory "${guest_pid[neighbour]}" find 'neighbour of the attacker')
ok "the neighbour's page is found (hva $hva, hpa $hpa)" test "$((hpa))" -gt $((96 << 20))
canary=$(memory "${guest_pid[neighbour]}" read "$hva" 64)
refused attacker write "$hpa" "another VM's memory"
refused attacker read "$hpa" "another VM's memory"
buffer=$(say attacker bytes '^buffer ')
like "$buffer" '^buffer [0-9a-f]{16}' "the device's buffer can be looked at"
unlike "$buffer" "$(printf 'neighbou' | xxd -p)" "another VM's memory does not get into the device"
refused attacker write "$hva" "another VM's memory, its address in that process"
is "$(memory "${guest_pid[neighbour]}" read "$hva" 64)" "$canary" "the neighbour's page is as it was"
is "$(say neighbour look '^page ')" "page same" "also as the neighbour sees it"

# The environment of a process is at the top of its stack, and nobody writes it.
pid=${guest_pid[attacker]}
environment=$(sha256sum <"/proc/$pid/environ")
stack=$(awk '/\[stack\]/ { sub(/.*-/, "", $1); print "0x" $1 }' "/proc/$pid/maps")
hva=$(printf '0x%x' $((stack - 64)))
hpa=$(memory "$pid" at "$hva")
ok "a page of hospes's own is found (hva $hva, hpa $hpa)" test "$((hpa))" -gt $((96 << 20))
refused attacker write "$hva" "hospes's own memory, its address in the process"
refused attacker write "$hpa" "hospes's own memory"
is "$(sha256sum <"/proc/$pid/environ")" "$environment" "hospes's page is as it was"
say attacker 'canary afterwards' '^canary at' >/dev/null
is "$(say attacker look '^page ')" "page same" "the attacker runs on"
guest_send attacker end
guest_wait attacker 60
is $? 0 "to a clean end" || guest_show attacker

# Killed while the device writes: all memory that is free is then full of a pattern, which must stay.
cat >"$TMP/hold.py" <<'PYTHON'
import mmap, sys, time
part, memory = b"\x11" * (1 << 20), mmap.mmap(-1, 1 << 30)
for at in range(0, len(memory), len(part)):
    memory[at:at + len(part)] = part
end = time.monotonic() + 2
while True:
    bad = [at for at in range(0, len(memory), len(part)) if memory[at:at + len(part)] != part]
    if bad or time.monotonic() > end:
        break
sys.exit(f"changed at {bad}" if bad else 0)
PYTHON
for backend in iommufd type1; do
	start "$backend" --memory 96M --iommu "$backend" --passthrough "$edu"
	refused "$backend" write 0xb000000 "by $backend, outside the space"
	dmesg -C
	guest_send "$backend" hammer
	guest_wait_for "$backend" '^hammering' 20
	guest_kill "$backend"
	ok "$backend: killed while the device writes: memory that was free since is not written" python3 "$TMP/hold.py"
	unlike "$(dmesg)" 'BUG:|Call Trace' "$backend: the host is well"
done

is "$(say neighbour look '^page ')" "page same" "the neighbour has noticed nothing"
guest_send neighbour end
guest_wait neighbour 60
is $? 0 "and powers off" || guest_show neighbour
done_testing
