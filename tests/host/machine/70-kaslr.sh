#!/bin/bash
# testhost: --cpus 2 --timeout 600 shared
# Booting directly does not cost the guest its randomisation: text and memory bases differ from boot to
# boot, with the kernel unpacked and cached by the host. Where a kernel may be placed and how evenly it
# is are unit tests (firmware/kaslr, firmware/kernel); here three boots show that a real one is.
. "$(dirname "$0")/../lib.sh"
plan 4

boots() { # N KERNEL INITRD ARG…: prints what the guests say
	local n=$1 kernel=$2 initrd=$3 i
	shift 3
	for ((i = 0; i < n; i++)); do
		guest_start kaslr hospes run --kernel "$kernel" --initrd "$initrd" --memory 512M "$@"
		guest_wait kaslr 120 || { guest_show kaslr >&2; return 1; }
		guest_log kaslr | tr -d '\r' | grep -a '^kaslr '
	done
}
count() { grep "^kaslr $1" | sort -u | wc -l; }

said=$(boots "$(times 3 32)" "$HOSPES_DEBIAN_BZIMAGE" "$HOSPES_DEBIAN_INITRD" \
	--cmdline 'console=ttyS0 quiet hospes.test=kaslr')
is $? 0 "boots of Debian's kernel"
# Three equal ones of 490 text bases: once in 240000 runs.
ok "the text base varies ($(count text <<<"$said"))" test "$(count text <<<"$said")" -ge "$(times 2 24)"
ok "page_offset_base varies ($(count page_offset <<<"$said"))" \
	test "$(count page_offset <<<"$said")" -ge "$(times 2 8)"

said=$(boots 1 "$HOSPES_GUEST_BZIMAGE" "$HOSPES_GUEST_INITRD" \
	--cmdline 'console=ttyS0 quiet nokaslr hospes.test=kaslr')
like "$said" 'text ffffffff81000000' "nokaslr on the command line is heeded"
