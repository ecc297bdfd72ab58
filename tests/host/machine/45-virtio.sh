#!/bin/bash
# testhost: --cpus 2 --timeout 600 shared
# Linux's virtio drivers beyond the ordinary: without MSI-X, taken away and bound again under load, and
# with queues that are reset one by one while traffic flows.
. "$(dirname "$0")/../lib.sh"
plan 13

truncate -s 64M "$TMP/data.img"
small=(--kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 192M --cpus 2)
small+=(--console virtio --disk "path=$TMP/data.img,queues=2" --verbose)
line='console=hvc0 quiet'
write='dd if=/dev/zero of=/dev/vda bs=64k count=200 oflag=direct'

# hospes says so when a driver or a device leaves the specification; here neither may.
unbroken() { ! grep -a 'needs a reset' "$TMP/$1.log"; }

guest_start intx hospes run "${small[@]}" --cmdline \
	"$line pci=nomsi hospes.sh=\"$write; grep -c IO-APIC.*virtio /proc/interrupts; head -c 64 /dev/hwrng | wc -c; seq 1 500\""
guest_wait intx 100
is $? 0 "disk, console and random numbers over shared level interrupts: the guest ends"
like "$(guest_log intx)" '200\+0 records out' "without MSI-X, the disk is written"
like "$(guest_log intx | tr -d '\r')" '^64$' "without MSI-X, random numbers come"
is "$(guest_log intx | tr -d '\r' | grep -aE '^[0-9]+$' | tail -n 500 | sha256sum)" \
	"$(seq 1 500 | sha256sum)" "without MSI-X, the console's output is whole"
ok "nothing was broken" unbroken intx

# The driver resets the device while requests are in flight, and starts it again.
guest_start unbind hospes run "${small[@]}" --cmdline \
	"$line hospes.sh=\"cd /sys/bus/virtio/drivers/virtio_blk; d=\$(basename \$(dirname \$(dirname \$(readlink -f /sys/block/vda)))); for i in 1 2 3 4 5; do ($write 2>/dev/null) & sleep 0.1; echo \$d >unbind; echo \$d >bind; wait; done; $write\""
guest_wait unbind 150
is $? 0 "the disk is unbound and bound five times under load: the guest ends"
like "$(guest_log unbind)" '200\+0 records out' "afterwards the disk is written" || guest_show unbind
ok "nothing was broken" unbroken unbind

# virtio-net resizes its rings by resetting one queue at a time (VIRTIO_F_RING_RESET). Then the guest has interrupts of packets
# that come wait for 0.2 s, and no longer.
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
guest_start rings hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --cpus 2 --verbose \
	--disk "path=$TMP/root.img" --net tap=tap9,create=on --cmdline \
	"console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.ip=10.9.0.2/24 hospes.sh=\"ping -q -c 1 -w 20 10.9.0.1; (ping -q -f -c 300 -w 30 10.9.0.1 >/dev/null) & for i in 1 2 3 4 5; do ethtool -G eth0 rx 64 tx 128 && ethtool -G eth0 rx 256 tx 64 || echo FAILED; done; wait; ping -q -c 3 -w 20 10.9.0.1; ethtool -C eth0 rx-usecs 200000 rx-frames 64 || echo FAILED; echo SELDOM; ping -q -c 3 -w 20 10.9.0.1; ethtool --per-queue eth0 queue_mask 1 --coalesce rx-usecs 0 rx-frames 0 || echo FAILED; echo AT ONCE; ping -q -c 5 -w 20 10.9.0.1\""
retry 30 ip link show tap9 >/dev/null 2>&1
ip addr add 10.9.0.1/24 dev tap9
ip link set tap9 up
guest_wait rings 200
like "$(guest_log rings)" '3 received, 0% packet loss' "rings resized ten times in a flood: the network works" ||
	guest_show rings
unlike "$(guest_log rings)" 'FAILED|netlink error' "every resize succeeded, and every ethtool -C"
pings=$(guest_log rings | tr '\n' ' ')
like "$pings" 'SELDOM[^=]*= ([2-9]|1[0-9])[0-9][0-9](\.[0-9]*)?/' "ethtool -C: interrupts wait for 0.2 s"
like "$pings" 'AT ONCE[^=]*= (1?[0-9]?[0-9])(\.[0-9]*)?/' "and for one queue, no longer"
ok "nothing was broken" unbroken rings
