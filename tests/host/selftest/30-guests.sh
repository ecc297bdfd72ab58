#!/bin/bash
# testhost: --timeout 600
# The guest artefacts boot, shown with QEMU as the VMM: what fails here is not hospes's fault.
. "$(dirname "$0")/../lib.sh"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"
plan 14

# boot NAME OPTION…: to the end; on failure, its console.
boot() {
	local name=$1
	shift
	guest_start "$name" qemu-system-x86_64 -accel kvm -cpu host -machine q35,smm=off -m 512 \
		-nodefaults -no-reboot -display none -serial stdio "$@"
	guest_wait "$name" 150 || { guest_show "$name"; return 1; }
}

small=(-kernel "$HOSPES_GUEST_BZIMAGE" -initrd "$HOSPES_GUEST_INITRD")
ok "small bzImage and initrd" boot small "${small[@]}" \
	-append 'console=ttyS0 quiet hospes.test=hello,kaslr hospes.sh="echo two words; exit 5"'
log=$(guest_log small)
like "$log" '^hello from 6\.12' "a built-in test ran"
like "$log" '^two words' "commands of the kernel command line ran"
like "$log" 'HOSPES-GUEST: exit 5' "their status is reported"
like "$log" 'kaslr text ffffffff[0-9a-f]{8}' "the guest can tell where its kernel is"
like "$log" 'kaslr page_offset_base ffff[0-9a-f]{4}[048c]0000000' "and its memory map"

ok "small vmlinux by PVH" boot pvh -kernel "$HOSPES_GUEST_VMLINUX" \
	-initrd "$HOSPES_GUEST_INITRD" -append 'console=ttyS0 quiet hospes.end=poweroff'

printf '#!/bin/sh\necho from the script\n' >"$TMP/hospes.sh"
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
ok "an initrd with a script added" boot added -kernel "$HOSPES_GUEST_BZIMAGE" \
	-initrd "$TMP/initrd" -append 'console=ttyS0 quiet'
like "$(guest_log added)" '^from the script' "the script ran"

ok "Debian's kernel with its modules" boot debian -kernel "$HOSPES_DEBIAN_BZIMAGE" \
	-initrd "$HOSPES_DEBIAN_INITRD" \
	-drive if=virtio,format=raw,file="$HOSPES_GUEST_DISK",snapshot=on \
	-nic user,model=virtio-net-pci \
	-append 'console=ttyS0 quiet hospes.sh="ls /dev/vda /sys/class/net; uname -v"'
log=$(guest_log debian)
like "$log" '^/dev/vda' "with a disk"
like "$log" 'Debian 6\.12' "it is Debian's"
unlike "$log" 'insmod .* failed' "every module loads"

words='root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="fio --version && iperf3 --version"'
ok "the Debian disk under the small kernel" boot disk -kernel "$HOSPES_GUEST_BZIMAGE" \
	-drive if=virtio,format=raw,file="$HOSPES_GUEST_DISK",snapshot=on \
	-append "console=ttyS0 quiet $words"
