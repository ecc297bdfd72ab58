#!/bin/bash
# testhost: --memory 5G --timeout 500 destructive
# What the host does to a device under a running guest: hospes killed and the device given to the next
# machine, its driver unbound, the device pulled out. Never a hang, and the guest lives.
. "$(dirname "$0")/../lib.sh"
destructive
nvme0=$(device 1b36:0010 0) && nvme1=$(device 1b36:0010 1) || skip_all "needs two NVMe controllers"
plan 13
for d in "$nvme0" "$nvme1"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
# Writes and compares until a line comes on the console.
(read -r line; touch /tmp/end) </dev/ttyS0 &
n=0
dd if=/dev/urandom of=/tmp/in bs=64k count=8 2>/dev/null
while [ ! -e /tmp/end ]; do
	if [ -b /dev/nvme0n1 ] && dd if=/tmp/in of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null; then
		dd if=/dev/nvme0n1 of=/tmp/out bs=64k count=8 iflag=direct 2>/dev/null
		cmp -s /tmp/in /tmp/out && n=$((n + 1)) && echo "round $n"
	else
		[ -e /tmp/lost ] || { touch /tmp/lost; echo "disk lost"; }
	fi
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
start() {
	guest_start "$1" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 256M \
		--verbose --passthrough "$2" --cmdline 'console=ttyS0 quiet'
}

start killed "$nvme0"
ok "a guest works" guest_wait_for killed '^round 2' 60
guest_kill killed
start next "$nvme0"
ok "killed under load, the device works for the next machine at once" guest_wait_for next '^round 2' 60

# the host's administrator wants it back
timeout 60 sh -c "echo $nvme0 >/sys/bus/pci/devices/$nvme0/driver/unbind"
is $? 0 "unbinding it from vfio-pci ends"
ok "hospes says that it was asked and released it" guest_wait_for next 'taken from the guest and released' 30
ok "the guest loses its disk" guest_wait_for next '^disk lost' 60
guest_send next end
guest_wait next 60
is $? 0 "and powers off by itself" || guest_show next
vfio_bind "$nvme0"
start again "$nvme0"
ok "bound again, it works again" guest_wait_for again '^round 2' 60
guest_send again end
guest_wait again 60
is $? 0 "to a clean end" || guest_show again

if [ "${HOSPES_TESTHOST:-}" = l1 ]; then
	start pulled "$nvme1"
	ok "another guest works" guest_wait_for pulled '^round 2' 60
	l0 device_del nvme1
	ok "pulled out of the host, it is taken from the guest" \
		guest_wait_for pulled 'taken from the guest and released' 60
	ok "and is gone from the host" retry 30 test ! -e "/sys/bus/pci/devices/$nvme1"
	guest_send pulled end
	guest_wait pulled 60
	is $? 0 "its guest powers off" || guest_show pulled
else
	for t in "another guest works" "pulled" "gone" "its guest powers off"; do skip "$t" "not on a real machine"; done
fi
unlike "$(dmesg)" 'BUG:|Call Trace|blocked for more' "the host has nothing to complain of"
