#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 600 shared
# Memory is plugged into a guest that works and unplugged again: 128M, 512M, 128M (HOSPES_LONG=1: many rounds), with a
# reset in the middle; what the guest has in it is right, the host has it back afterwards, and a guest that refuses keeps
# it, with the reason in the event.
. "$(dirname "$0")/../lib.sh"

unset XDG_RUNTIME_DIR
head -c 150M /dev/urandom >"$TMP/data.img"
sum=$(md5sum <"$TMP/data.img" | cut -d' ' -f1)

# It says how much memory it has, as blocks of 128M that are online, and does what it is sent.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
mkdir /big
mount -t tmpfs -o size=100% none /big
copy() { # more than it had at first, from the disk
	mount -o remount,size=300M /big
	dd if=/dev/vda of=/big/data bs=1M 2>/dev/null
	echo "copied $(md5sum </big/data | cut -d' ' -f1)"
}
while read -r line; do eval "$line"; done </dev/ttyS0 &
while :; do
	echo "has $(cat /sys/devices/system/memory/memory*/state | grep -c '^online') blocks"
	usleep 300000
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

ctl() { timeout 60 hospes ctl memory "$@"; }
events() { grep -c '"event":"memory"' "$TMP/events"; }
new_events() { [ "$(events)" -ge "$1" ]; }
guest_has() { guest_times vm "^has $1 blocks" $(($(grep -ac "^has $1 blocks" "$TMP/vm.log") + 2)) 90; }
of() { ctl status | jq "$1"; }
rss() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/${guest_pid[vm]}/status"; }

# change SIZE: set it; the guest does it, and the event comes.
change() {
	local before
	before=$(events)
	ctl set "memory=$1" || return
	retry 60 new_events $((before + 1)) || return
	tail -n 1 "$TMP/events"
}

guest_start vm hospes run --name memory --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M,max=512M \
	--disk "path=$TMP/data.img,readonly=on" --cmdline 'console=ttyS0 memhp_default_state=online_movable'
ok "a guest runs with 128M of 512M" guest_wait_for vm '^has 1 blocks' 240 || guest_show vm
is "$(ctl status | jq -c .memory)" "$(jq -nc '{bytes: 134217728, max_bytes: 536870912, unit_bytes: 134217728}')" "so says the status"
hospes ctl memory events >"$TMP/events" &
wait_for "$TMP/events" '"event":"stream"' 20

like "$(ctl set memory=200M 2>&1)" 'in units of 128M; the nearest sizes are 128M and 256M' "a size between units is refused"
like "$(ctl set memory=96M 2>&1)" 'not within 128M.*there is a balloon' "less than at the start too"
like "$(ctl set memory=1G 2>&1)" 'and 512M;.*larger max' "and more than the max"

like "$(change 512M)" '"bytes":536870912}' "three times as much comes: the guest says that it has found it"
ok "and uses it" guest_has 4 || guest_show vm
is "$(of .memory.bytes)" $((512 << 20)) "the status has it"
guest_send vm copy
ok "it copies more from its disk than it had memory, and all of it is right" guest_wait_for vm "^copied $sum" 90 || guest_show vm
full=$(rss)
ok "which the host has given it" [ "$full" -gt 200 ]

guest_send vm 'echo 0 >/sys/firmware/acpi/hotplug/memory/enabled; echo it refuses'
ok "the guest is made to refuse" guest_wait_for vm '^it refuses' 30
like "$(change 128M)" '"bytes":536870912,"text":"512M of 128M wanted: the guest refuses .unit . at 0x[0-9a-f]*, status 0x80' "the event says that it does"
ok "it keeps it" guest_has 4

resets() { of .resets; }
ctl reset
is "$(resets)" 1 "a reset in the middle"
ok "the guest starts with all of it" guest_times vm '^HOSPES-GUEST: up' 2 90
ok "and finds it at once" guest_has 4 || guest_show vm
guest_send vm copy
ok "it uses it again" guest_times vm "^copied $sum" 2 90 || guest_show vm

for round in $(seq "$(times 1 20)"); do
	guest_send vm 'rm -f /big/data; echo removed'
	guest_times vm '^removed' "$round" 30
	before=$(rss)
	like "$(change 128M)" '"bytes":134217728}' "$round: it gives up all that came"
	ok "$round: it has 128M" guest_has 1 || { guest_show vm; break; }
	is "$(of .memory.bytes)" $((128 << 20)) "$round: so says the status"
	ok "$round: the host has the rest back" [ "$(rss)" -le 160 ] || diag "$before, then $(rss) MiB"
	like "$(change 384M)" '"bytes":402653184}' "$round: some of it is back"
	ok "$round: it has it" guest_has 3 || { guest_show vm; break; }
done
guest_send vm copy
ok "it is as good as before" guest_times vm "^copied $sum" 3 90 || guest_show vm

# The guest by itself, without being asked.
guest_send vm 'rm -f /big/data; echo 1 >/sys/bus/acpi/devices/PNP0C80:01/eject; echo it gives one up'
ok "the guest gives one up by itself" guest_wait_for vm '^it gives one up' 30
less() { [ "$(of .memory.bytes)" = $((256 << 20)) ]; }
ok "then there is one unit less" retry 60 less

log=$(guest_log vm | tr -d '\r')
unlike "$log" 'Call Trace|ACPI (Error|Warning|BIOS Error)|\[Firmware (Bug|Warn)\]|Eject incomplete|add_memory failed' \
	"the kernel has nothing to complain of"
ok "it powers off" ctl shutdown
guest_wait vm 60
is $? 0 "and is done"
done_testing
