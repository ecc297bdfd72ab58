#!/bin/bash
# testhost: --cpus 2 --memory 3G --timeout 900
# A guest that has suspended itself is woken by SIGTERM and powers off. With HOSPES_LONG=1: one that hibernates powers
# its machine off, and goes on in another process.
. "$(dirname "$0")/../lib.sh"
plan "$(times 3 7)"

# In the guest: powers off for the button's key, and for no other (a wake-up is one too), as logind
# does; then sleeps. Read from a disk, since Debian's disk is not ours to change.
cat >"$TMP/sleep.sh" <<'GUEST'
modprobe -a button evdev
for name in /sys/class/input/event*/device/name; do
	grep -q "Power Button" "$name" || continue
	event=${name%/device/name}
done
exec 3<"/dev/input/${event##*/}"
(while set -- $(dd bs=24 count=1 <&3 2>/dev/null | od -An -tu2 -j16 -N6); do
	[ "$*" != "1 116 1" ] || { echo pressed; echo o >/proc/sysrq-trigger; }
done) &
echo falling asleep
echo freeze >/sys/power/state
echo awake
wait
exit
GUEST
truncate -s 4096 "$TMP/sleep.sh"

debian=(--kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD" --memory 512M
	--disk "path=$HOSPES_GUEST_DISK,readonly=on"
	--cmdline 'console=ttyS0 loglevel=7 no_console_suspend root=/dev/vda ro init=/usr/lib/hospes/init hospes.sh="sh /dev/vdb"')
guest_start sleeper hospes run "${debian[@]}" --disk "path=$TMP/sleep.sh,readonly=on" --grace 55
ok "a guest suspends itself" guest_wait_for sleeper 'PM: suspend entry' 200 || guest_show sleeper
kill -TERM "${guest_pid[sleeper]}"
guest_wait sleeper 90
is $? 0 "SIGTERM: it powers off" || guest_show sleeper
like "$(guest_log sleeper)" '^awake' "having woken up"
[ "$(times 0 1)" = 1 ] || exit 0

# The swap disk tells whether there is something to resume.
cat >"$TMP/hibernate.sh" <<'GUEST'
if dd if=/dev/vdc bs=1 skip=4086 count=9 2>/dev/null | grep -q S1SUSPEND; then
	cat /sys/block/vdc/dev >/sys/power/resume
	echo "not resumed"
	exit 1
fi
mkswap /dev/vdc >/dev/null
swapon /dev/vdc
echo shutdown >/sys/power/disk
word=$(cat /proc/sys/kernel/random/uuid)
echo "hibernating $word"
echo disk >/sys/power/state
echo "awake $word"
exit
GUEST
truncate -s 4096 "$TMP/hibernate.sh"
truncate -s 1G "$TMP/swap"
for boot in first second; do
	guest_start "$boot" hospes run "${debian[@]}" --disk "path=$TMP/hibernate.sh,readonly=on" --disk "path=$TMP/swap,format=raw"
	guest_wait "$boot" 250
	is $? 0 "hibernation, $boot process: it powers off" || guest_show "$boot" 60
done
word=$(guest_log first | tr -d '\r' | sed -n 's/^hibernating //p')
unlike "$(guest_log first)" '^awake' "the first ends before it is awake"
like "$(guest_log second)" "^awake ${word:-none}" "the second goes on where the first was"
