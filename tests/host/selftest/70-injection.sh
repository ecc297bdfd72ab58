#!/bin/bash
# testhost: --clock instructions --memory 2G --timeout 300
# An interrupt that KVM injects reaches its guest once. QEMU 10.0.13 delivers some of them twice, which
# tools/testhost.d/mend.py mends; without that, guests that have many interrupts hang or die here.
. "$(dirname "$0")/../lib.sh"
plan 3
ip tuntap add tap0 mode tap vnet_hdr
ip addr add 10.7.0.1/24 dev tap0
ip link set tap0 up
for n in 1 2 3; do
	guest_start "vm$n" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
		--memory 256M --net tap=tap0 \
		--cmdline 'console=ttyS0 quiet hospes.ip=10.7.0.2/24 hospes.sh="echo ready; read x"'
	guest_wait_for "vm$n" '^ready' 60
	# Each packet is an interrupt, while the timer's are under way.
	ok "guest $n answers 2000 packets, one after the other" \
		ping -q -f -c 2000 -w 20 10.7.0.2
	guest_kill "vm$n"
done
