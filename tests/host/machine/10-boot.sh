#!/bin/bash
# testhost: --cpus 2 --memory 9G --timeout 2400
# Linux boots to user space: the small kernel and Debian's, from bzImage and vmlinux, with 1 and 4 vCPUs,
# 256 MiB and 6 GiB; the guest sees what it was given, and its kernel has nothing to complain of.
. "$(dirname "$0")/../lib.sh"

# boot NAME SECONDS ARG…: a guest that prints what it is; 0 when it powered off.
boot() {
	local name=$1 seconds=$2
	shift 2
	guest_start "$name" hospes run "$@"
	guest_wait "$name" "$seconds"
	local status=$?
	[ "$status" = 0 ] || guest_show "$name"
	return "$status"
}

# booted NAME CPUS MIB: it powered off having seen them. The kernel keeps part of the memory.
booted() {
	local log
	log=$(guest_log "$1" | tr -d '\r')
	like "$log" "^cpus $2\$" "$1: the guest sees $2 CPUs"
	local kib
	kib=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' <<<"$log" | head -n 1)
	ok "$1: the guest sees about $3 MiB (${kib:-0} KiB)" \
		test "${kib:-0}" -gt $(($3 * 1024 * 3 / 4)) -a "${kib:-0}" -le $(($3 * 1024))
	unlike "$log" 'ACPI (Error|Warning|BIOS Error|Exception)|\[Firmware Bug\]|Call Trace|can.t claim|no compatible bridge window' \
		"$1: the kernel has nothing to complain of"
}

small=(--initrd "$HOSPES_GUEST_INITRD" --cmdline 'console=ttyS0 hospes.test=hello,info')
# Each pair of properties once; HOSPES_LONG=1: all eight.
shapes=('1 256 VMLINUX' '1 6144 BZIMAGE' '4 256 BZIMAGE' '4 6144 VMLINUX')
[ "$(times 0 1)" = 0 ] ||
	shapes+=('1 256 BZIMAGE' '1 6144 VMLINUX' '4 256 VMLINUX' '4 6144 BZIMAGE')
for shape in "${shapes[@]}"; do
	read -r cpus mib kind <<<"$shape"
	image=HOSPES_GUEST_$kind
	name=small-$cpus-$mib-${kind,,}
	ok "$name powers off" boot "$name" 240 --kernel "${!image}" "${small[@]}" \
		--cpus "$cpus" --memory "${mib}M"
	booted "$name" "$cpus" "$mib"
done

# An initrd of more than 2 GiB: the kernel passes over the body of its first entry, a directory, so that what the
# guest runs lies beyond them.
if [ "$(times 0 1)" = 1 ]; then
	beyond=$((2200 << 20))
	{
		printf '070701'
		printf '%08X' 1 0x41ed 0 0 2 0 $((beyond - 116)) 0 0 0 0 5 0
		printf 'skip\0\0'
	} >"$TMP/initrd"
	truncate -s "$beyond" "$TMP/initrd"
	cat "$HOSPES_GUEST_INITRD" >>"$TMP/initrd"
	ok "an initrd of 2.2 GiB: the guest powers off" boot large 480 --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" \
		--memory 6G --cmdline 'console=ttyS0 hospes.test=hello,info'
	like "$(guest_log large)" '^hello from' "it ran what lies beyond 2 GiB"
	rm "$TMP/initrd"
fi

debian=(--kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD"
	--cmdline 'console=ttyS0 hospes.test=hello,info')
shapes=('4 6144')
[ "$(times 0 1)" = 0 ] || shapes+=('1 256')
for shape in "${shapes[@]}"; do
	read -r cpus mib <<<"$shape"
	name=debian-$cpus-$mib
	ok "$name powers off" boot "$name" 480 "${debian[@]}" --cpus "$cpus" --memory "${mib}M"
	booted "$name" "$cpus" "$mib"
done
done_testing
