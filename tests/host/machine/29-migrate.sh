#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 600 shared
# A machine that works moves to another hospes and back: its guest checks memory, disk, network and clocks all the time, and
# nothing was wrong; a target that is killed, or a migration that is cancelled, leaves it where it is; what cannot be moved, and
# what does not fit, is named. HOSPES_LONG=1: fifty times.
. "$(dirname "$0")/../lib.sh"
unset XDG_RUNTIME_DIR
rounds=$(times 2 50)
plan $((12 + 6 * rounds))

truncate -s 64M "$TMP/disk"
ip link add br9 type bridge && ip addr add 10.29.0.1/24 dev br9 && ip link set br9 up
for tap in tapa tapb; do
	ip tuntap add "$tap" mode tap vnet_hdr && ip link set "$tap" master br9 && ip link set "$tap" up
done
# It fills memory with a pattern and looks at it again and again, writes and reads its disk, pings, and says what time it
# is. What it is sent, it does.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
mkdir /big
mount -t tmpfs -o size=60M none /big
dd if=/dev/urandom of=/big/a bs=1M count=8 2>/dev/null
sum=$(md5sum </big/a)
dd if=/big/a of=/dev/vda bs=1M oflag=direct 2>/dev/null
while read -r line; do eval "$line"; done </dev/ttyS0 &
(while :; do # memory and disk, together
	[ "$(md5sum </big/a)" = "$sum" ] || echo "MEMORY IS WRONG"
	[ "$(dd if=/dev/vda bs=1M count=8 iflag=direct 2>/dev/null | md5sum)" = "$sum" ] || echo "DISK IS WRONG"
	n=$((n + 1))
	echo "checked $n"
	usleep 100000
done) &
(while :; do # what is written is read again; it is not the same memory and disk each time
	i=$(((i + 1) % 16))
	dd if=/dev/urandom of=/big/b bs=64k count=1 2>/dev/null
	dd if=/big/b of=/dev/vda bs=64k seek=$((160 + i)) oflag=direct 2>/dev/null || echo "DISK FAILS"
	dd if=/dev/vda of=/big/c bs=64k skip=$((160 + i)) count=1 iflag=direct 2>/dev/null
	cmp -s /big/b /big/c || echo "WHAT WAS WRITTEN IS WRONG"
	usleep 20000
done) &
ip addr add 10.29.0.2/24 dev eth0
ip link set eth0 up
(while :; do ping -c 1 -W 30 10.29.0.1 >/dev/null && p=$((p + 1)) || echo "NETWORK FAILS"; echo "pinged $p"; usleep 200000; done) &
was=0
while :; do
	now=$(cut -d' ' -f1 /proc/uptime | tr -d .)
	[ "$now" -ge "$was" ] || echo "CLOCK WENT BACK from $was to $now"
	was=$now
	usleep 50000
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

here=(--kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --console serial)
tap_of() { if [ $(($1 % 2)) = 0 ]; then echo tapa; else echo tapb; fi; }
ctl() { timeout 100 hospes ctl "$@"; }
# Every second one by TCP.
place_of() { if [ $(($1 % 2)) = 0 ]; then echo tcp:127.0.0.1:7777; else echo "unix:$TMP/in$1"; fi; }
listens() { [ -S "$TMP/in$1" ] || ss -tlnH | grep -q ':7777 '; }
# comes N [OPTION…]: the Nth hospes waits for a machine.
comes() {
	local n=$1
	shift
	guest_start "vm$n" hospes run --name "vm$n" --incoming "$(place_of "$n")" "${here[@]}" --disk "path=$TMP/disk" --net "tap=$(tap_of "$n")" "$@"
	retry 60 listens "$n"
}

guest_start vm0 hospes run --name vm0 "${here[@]}" --cpus 2 --memory 96M --balloon --disk "path=$TMP/disk" \
	--net tap=tapa --cmdline 'console=ttyS0 quiet'
ok "a guest works" guest_wait_for vm0 '^checked 2' 120 || guest_show vm0
ok "with a network" guest_wait_for vm0 '^pinged 1' 60 || guest_show vm0
is "$(ctl vm0 migrate --check)" "can be migrated" "it says that it can be migrated"
ctl vm0 events >"$TMP/events" &
for ((i = 0; i < rounds; i++)); do
	next=$((i + 1))
	comes "$next"
	ok "$next: it moves" ctl "vm$i" migrate "$(place_of "$next")" --downtime 300ms || guest_show "vm$i"
	diag "$(grep -ao '[0-9]* rounds, .* ms' "$TMP/events" | tail -n 1)"
	guest_wait "vm$i" 60
	is "$?" 0 "$next: where it was, it has ended well"
	lines=$(grep -ac '^checked' "$TMP/vm$next.log") pings=$(grep -ac '^pinged' "$TMP/vm$next.log")
	ok "$next: it works where it is" guest_times "vm$next" '^checked' $((lines + 2)) 100 || guest_show "vm$next"
	ok "$next: with its network" guest_times "vm$next" '^pinged' $((pings + 2)) 60 || guest_show "vm$next"
	guest_send "vm$next" 'echo "is copy $(dmesg | grep -c "virtual machine fork")"'
	ok "$next: with its console, and it is no copy" guest_wait_for "vm$next" '^is copy 0' 60 || guest_show "vm$next"
	unlike "$(guest_log "vm$i"; guest_log "vm$next")" 'WRONG|FAILS|BACK' "$next: nothing was wrong"
	ctl "vm$next" events >>"$TMP/events" &
done
last=vm$rounds

# The other side goes, or does not fit.
stays() { # WHAT
	local lines
	lines=$(grep -ac '^checked' "$TMP/$last.log")
	ok "$1: it goes on where it is" guest_times "$last" '^checked' $((lines + 1)) 100 || guest_show "$last"
}
comes 101
kill -STOP "${guest_pid[vm101]}"
ctl "$last" migrate "unix:$TMP/in101" >"$TMP/killed" 2>&1 &
ctl_pid=$!
retry 60 sh -c "timeout 20 hospes ctl $last status | grep -q '\"stage\": \"greeting\"'"
guest_kill vm101
wait "$ctl_pid"
is "$?" 1 "a target that is killed is a failure"
stays "a target that is killed"
rm -f "$TMP/in101"
comes 103
ctl "$last" migrate "unix:$TMP/in103" --downtime 1ms >"$TMP/cancelled" 2>&1 &
ctl_pid=$!
retry 60 sh -c "timeout 20 hospes ctl $last status | grep -q '\"stage\": \"rounds\"'"
ok "it can be cancelled" ctl "$last" migrate cancel
wait "$ctl_pid"
like "$(cat "$TMP/cancelled")" 'cancelled' "which the one who asked for it hears"
guest_wait vm103 60
is "$?" 1 "and the target ends"
stays "a cancelled migration"
comes 105 --uuid 6ba7b810-9dad-11d1-80b4-00c04fd430c8
ctl "$last" migrate "unix:$TMP/in105" >/dev/null 2>&1
guest_wait vm105 60
like "$(guest_log vm105)" 'uuid is "6ba7b810.*here, and ".*" at the source' "what does not fit is named"
like "$(ctl "$last" migrate "unix:$TMP/nobody" 2>&1)" 'nobody: No such file' "where nobody waits is said"

# The source is killed: no half of a machine is left.
comes 107
ctl "$last" migrate "unix:$TMP/in107" --downtime 1ms >/dev/null 2>&1 &
retry 60 sh -c "timeout 20 hospes ctl $last status | grep -q '\"stage\": \"rounds\"'"
guest_kill "$last"
guest_wait vm107 60
is "$?" 1 "a source that is killed ends the target"
for dev in tapa tapb br9; do ip link del "$dev"; done
