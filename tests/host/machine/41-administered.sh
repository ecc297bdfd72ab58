#!/bin/bash
# testhost: --cpus 2 --timeout 600 shared
# What administrators do to a machine that works: in the guest, CPUs off and on under load, a disk removed while it is
# read and found again; on the host, the process stopped for a while.
. "$(dirname "$0")/../lib.sh"
plan 5

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
want=$(md5sum </dev/vda)
touch /tmp/busy
for i in 1 2 3; do
	(while [ -e /tmp/busy ]; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null; done) &
done
for round in 1 2; do
	for c in 1 2 3; do echo 0 >/sys/devices/system/cpu/cpu$c/online; done
	for c in 3 2 1; do echo 1 >/sys/devices/system/cpu/cpu$c/online; done
done
echo "online $(cat /sys/devices/system/cpu/online)"
device=$(readlink -f /sys/block/vda/device/..)
echo 1 >"$device/remove"
rm /tmp/busy
wait
[ -b /dev/vda ] || echo removed
echo 1 >/sys/bus/pci/rescan
until [ -b /dev/vda ]; do usleep 50000; done
[ "$want" = "$(md5sum </dev/vda)" ] && echo "found again, whole"
while read -r line; do echo "time $(date +%s)"; done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
head -c 4M /dev/urandom >"$TMP/data"
guest_start inside hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 256M --cpus 4 \
	--disk "path=$TMP/data,readonly=on" --cmdline 'console=ttyS0 quiet'
ok "CPUs go off and on under load" guest_wait_for inside '^online 0-3' 120 || guest_show inside
ok "a disk is removed while it is read" guest_wait_for inside '^removed' 60 || guest_show inside
ok "found again, it is whole" guest_wait_for inside '^found again, whole' 60 || guest_show inside

# Stopped, as by a debugger or a host that is suspended: the guest goes on, and its clock has not stood still.
asked=0
behind() { # sets $behind: by how many seconds
	guest_send inside now
	guest_times inside '^time [0-9]' $((asked += 1)) 60 || return
	behind=$(($(date +%s) - $(guest_log inside | tr -d '\r' | sed -n 's/^time //p' | tail -n 1)))
}
behind || fail "it tells the time" || guest_show inside
before=$behind
kill -STOP "${guest_pid[inside]}"
read -r -t "$(times 5 25)" <> <(:)
kill -CONT "${guest_pid[inside]}"
ok "stopped and continued, it answers" behind || guest_show inside
ok "its clock went on ($before s behind before, $behind s after)" test $((behind - before)) -lt 4
