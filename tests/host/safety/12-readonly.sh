#!/bin/bash
# testhost: --memory 5G --timeout 400 destructive
# A guest that has edu behind an IOMMU of its own lets it reach a page for reading only, and then makes it
# write there: the page stays, and the host's log, hospes's and the guest's tell it. Before, the same write
# to the same page works where it may. The page is above 4 GiB, the address that the device uses far below.
. "$(dirname "$0")/lib.sh"
edu=$(device 1234:11e8) || skip_all "no edu device"
with_vfio "$edu"
attackers
sed -i 's|^/dma .*|echo vfio-pci >/sys/bus/pci/devices/$device/driver_override\n\
echo $device >/sys/bus/pci/drivers_probe\n/dma vfio:$device </dev/ttyS0|' "$TMP/hospes.sh"
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh" "$dma"

at=0x2345000
text() { printf '%-8s' "$1" | xxd -p; }
# faults NAME: made until the kernel tells it, since it tells few in five seconds.
faults() {
	for _ in 1 2 3 4; do
		say "$1" "write $at" '^wrote' >/dev/null || return
		retry 4 sh -c "dmesg | grep -q 'fault addr $at '" && return
	done
	return 1
}
dmesg -C
# The guest has no interrupt remapping; its device is not asked for interrupts. Nothing is mapped, and so
# pinned, that it does not ask for.
start guest --memory 3584M --viommu on,bypass=off --passthrough "$edu,strategy=strict" \
	--cmdline 'console=ttyS0 quiet vfio_iommu_type1.allow_unsafe_interrupts=1'
own=$(say guest 'canary writable' '^canary at' | cut -d' ' -f3)
ok "the guest has a page above 4 GiB ($own)" test "$((own))" -ge $((1 << 32))
say guest "map rw $at" '^mapped' >/dev/null
say guest "write $at" '^wrote' >/dev/null
like "$(say guest look '^page ')" '^page changed' "what is mapped to be written is written, at an address of 26 bits ($at)"
say guest "unmap $at" '^unmapped' >/dev/null

# The write comes first: QEMU's IOMMU refuses by its cache as well, and then tells nobody.
say guest 'canary readable' '^canary at' >/dev/null
say guest "map ro $at" '^mapped' >/dev/null
unlike "$(dmesg)" 'DMAR:.*fault addr' "without a fault so far"
ok "a write where it may only read: the host's log has the fault" faults guest
like "$(dmesg | grep "fault addr $at ")" 'DMA Write.*Write access is not set' "for want of the right to write"
is "$(say guest look '^page ')" "page same" "the page is as it was"
ok "hospes says so, with device and address" \
	guest_wait_for guest "DMA fault: write at iova $at by $edu: .*" 10
ok "and the virtual IOMMU reports it to the guest" guest_wait_for guest 'fault from EP .* at 0x2345000' 10
say guest "read $at" '^read' >/dev/null
like "$(say guest bytes '^buffer ')" "^buffer $(text readable)" "what may be read is read"
guest_send guest end
guest_wait guest 100
is $? 0 "the guest powers off" || guest_show guest
host_is_well
done_testing
