#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# vCPUs are plugged into a guest that works and unplugged again: 1, 4, 1 (HOSPES_LONG=1: 16, and many rounds), with a
# reset in the middle; a guest that refuses keeps them, and the event says why. Its work goes on, and is right.
. "$(dirname "$0")/../lib.sh"

unset XDG_RUNTIME_DIR
max=$(times 4 16)
all=0-$((max - 1))

# It computes on every CPU that it has, says when something is wrong, brings CPUs online as udev does, and does what it is
# sent.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
first=$(head -c 100000 /dev/zero | md5sum)
work() {
	while :; do
		[ "$(head -c 100000 /dev/zero | md5sum)" = "$first" ] || echo "bad sum"
		echo >>/tmp/rounds
	done
}
work & work & work &
while read -r line; do eval "$line"; done </dev/ttyS0 &
while :; do
	for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do
		read -r online <"$cpu" && [ "$online" = 1 ] || echo 1 >"$cpu"
	done 2>/dev/null
	echo "has $(nproc) online $(cat /sys/devices/system/cpu/online) rounds $(wc -l </tmp/rounds)"
	usleep 300000
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

ctl() { timeout 60 hospes ctl cpus "$@"; }
events() { grep -c '"event":"cpus"' "$TMP/events"; }
new_events() { [ "$(events)" -ge "$1" ]; }
# Its next lines say so.
guest_has() { guest_times vm "^has $1 online $2 rounds" $(($(grep -ac "^has $1 online $2 rounds" "$TMP/vm.log") + 2)) 90; }
rounds() { grep -a '^has ' "$TMP/vm.log" | tail -n 1 | tr -d '\r' | sed 's/.* //'; }
works_on() { [ "$(rounds)" -gt "$1" ]; }

# change N: set it; the guest does it, and the event comes.
change() {
	local before
	before=$(events)
	ctl set "cpus=$1" || return
	retry 60 new_events $((before + 1)) || return
	tail -n 1 "$TMP/events"
}

guest_start vm hospes run --name cpus --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 512M \
	--cpus "1,max=$max" --cmdline 'console=ttyS0'
ok "a guest runs with one of $max" guest_wait_for vm '^has 1 online 0 rounds' 90 || guest_show vm
is "$(ctl status | jq -c .cpus)" "{\"count\":1,\"max\":$max}" "so says the status"
hospes ctl cpus events >"$TMP/events" &
wait_for "$TMP/events" '"event":"stream"' 20

like "$(change "$max")" "\"count\":$max}" "all of them come: the guest says that it has found them"
ok "and uses them" guest_has "$max" "$all" || guest_show vm
is "$(ctl status | jq .cpus.count)" "$max" "the status has them"
before=$(rounds)
ok "its work goes on" retry 60 works_on "$before"

guest_send vm 'echo 0 >/sys/firmware/acpi/hotplug/processor/enabled; echo it refuses'
ok "the guest is made to refuse" guest_wait_for vm '^it refuses' 30
like "$(change 1)" "\"count\":$max,\"text\":\"$max of 1 wanted: the guest refuses .CPU 1, status 0x80" "the event says that it does"
ok "it keeps them" guest_has "$max" "$all"

resets() { ctl status | jq .resets; }
ctl reset
is "$(resets)" 1 "a reset in the middle"
ok "the guest starts with all of them" guest_times vm '^HOSPES-GUEST: up' 2 90
ok "and has them at once" guest_has "$max" "$all"

for round in $(seq "$(times 1 4)"); do
	like "$(change 1)" '"count":1}' "$round: it gives up all but one"
	ok "$round: it has one" guest_has 1 0 || { guest_show vm; break; }
	like "$(change "$max")" "\"count\":$max}" "$round: they are back"
	ok "$round: it has them" guest_has "$max" "$all" || { guest_show vm; break; }
done
# The guest by itself, without being asked.
guest_send vm 'echo 1 >/sys/bus/acpi/devices/ACPI0007:01/eject; echo it gives one up'
ok "the guest gives one up by itself" guest_wait_for vm '^it gives one up' 30
before=$(events)
fewer() { [ "$(ctl status | jq .cpus.count)" = $((max - 1)) ]; }
ok "then there is one less" retry 60 fewer
before=$(rounds)
ok "its work goes on" retry 60 works_on "$before"

like "$(ctl set cpus=0 2>&1)" '0 is not within 1 and' "none at all is refused"
like "$(ctl set cpus=$((max + 1)) 2>&1)" "is not within 1 and $max; to have more, start the machine with a larger max" "more than the max too"
log=$(guest_log vm | tr -d '\r')
unlike "$log" '^bad|Call Trace|ACPI (Error|Warning|BIOS Error)|\[Firmware (Bug|Warn)\]|Eject incomplete|rcu.*stall|TSC warp' \
	"the work was right and the kernel has nothing to complain of"
ok "it powers off" ctl shutdown
guest_wait vm 60
is $? 0 "and is done"
done_testing
