#!/bin/bash
# testhost: --cpus 2 --memory 3G --timeout 300
# A guest that has suspended itself is woken by SIGTERM and powers off.
. "$(dirname "$0")/../lib.sh"
plan 3

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

guest_start sleeper hospes run --kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD" --memory 512M \
	--disk "path=$HOSPES_GUEST_DISK,readonly=on" --disk "path=$TMP/sleep.sh,readonly=on" --grace 55 \
	--cmdline 'console=ttyS0 loglevel=7 no_console_suspend root=/dev/vda ro init=/usr/lib/hospes/init hospes.sh="sh /dev/vdb"'
ok "a guest suspends itself" guest_wait_for sleeper 'PM: suspend entry' 200 || guest_show sleeper
kill -TERM "${guest_pid[sleeper]}"
guest_wait sleeper 90
is $? 0 "SIGTERM: it powers off" || guest_show sleeper
like "$(guest_log sleeper)" '^awake' "having woken up"
