#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# Every way into a kernel with a real one, a boot for each: each compression unpacked by hospes, the
# kernel's own decompressor, PVH and the 64-bit entry of a vmlinux; and the cache of unpacked kernels,
# damaged too. (Which way is taken when, and the cache's rules, are unit tests.)
. "$(dirname "$0")/../lib.sh"
export XDG_CACHE_HOME=$TMP/cache
said=(--cmdline 'console=ttyS0 quiet hospes.test=hello' --initrd "$HOSPES_GUEST_INITRD" --memory 128M -v)

# boots NAME KERNEL REGEX ARG…: it powers off, having been entered as the line of the log says.
boots() {
	local name=$1 kernel=$2 regex=$3
	shift 3
	guest_start boot hospes run --kernel "$kernel" "${said[@]}" "$@"
	if guest_wait boot 240; then
		like "$(guest_log boot | tr -d '\r' | grep -a 'entered by')" "$regex" "$name"
	else
		guest_show boot
		fail "$name"
	fi
}

boots "the kernel as it is built" "$HOSPES_GUEST_BZIMAGE" 'bzImage, gzip, entered by 64-bit, randomised'
boots "xz is unpacked" "$HOSPES_GUEST_BZIMAGE_XZ" 'bzImage, xz, entered by 64-bit, randomised'
boots "zstd is unpacked" "$HOSPES_GUEST_BZIMAGE_ZSTD" 'bzImage, zstd, entered by 64-bit, randomised'
boots "lz4 is unpacked" "$HOSPES_GUEST_BZIMAGE_LZ4" 'bzImage, lz4, entered by 64-bit, randomised'
boots "the second time it comes from the cache" "$HOSPES_GUEST_BZIMAGE_LZ4" \
	'lz4 \(unpacked before\), entered by 64-bit, randomised'
is "$(find "$TMP/cache" -name '*.kernel' | wc -l)" 4 "four entries"
is "$(find "$TMP/cache" -name '*.kernel' -perm 400 -user "$(id -un)" | wc -l)" 4 "all private"

# A byte in the middle of each entry: seen when it is copied, unpacked anew, kept anew.
for entry in "$TMP"/cache/hospes/kernels/*.kernel; do
	chmod 600 "$entry"
	printf '\252\125\252' | dd of="$entry" bs=1 seek=3000000 conv=notrunc status=none
	chmod 400 "$entry"
done
guest_start boot hospes run --kernel "$HOSPES_GUEST_BZIMAGE_LZ4" "${said[@]}"
guest_wait boot 240
is $? 0 "a damaged entry does not hurt"
like "$(guest_log boot)" 'cache entry .* is removed: its data is damaged' "and is reported"
is "$(find "$TMP/cache" -name '*.kernel' | wc -l)" 4 "and it was replaced"

# With payload_length 0 (boot protocol 2.08) nobody but the kernel itself knows where its payload is.
cp "$HOSPES_GUEST_BZIMAGE" "$TMP/hidden"
printf '\0\0\0\0' | dd of="$TMP/hidden" bs=1 seek=$((0x24c)) conv=notrunc status=none
boots "the kernel's own decompressor" "$TMP/hidden" 'bzImage, unknown, entered by decompressor, randomised'

boots "PVH" "$HOSPES_GUEST_VMLINUX" 'vmlinux, none, entered by PVH$'
# Type 18 of the owner "Xen" is the PVH entry: another type hides it.
python3 - "$HOSPES_GUEST_VMLINUX" "$TMP/vmlinux" <<-'END'
	import struct, sys
	data = bytearray(open(sys.argv[1], "rb").read())
	phoff, = struct.unpack_from("<Q", data, 32)
	count, = struct.unpack_from("<H", data, 56)
	for i in range(count):
	    kind, _, at, _, _, size = struct.unpack_from("<IIQQQQ", data, phoff + 56 * i)
	    end = at + size
	    while kind == 4 and at + 12 <= end:
	        name, desc, note = struct.unpack_from("<III", data, at)
	        if note == 18 and data[at + 12:at + 16] == b"Xen\0":
	            struct.pack_into("<I", data, at + 8, 99)
	        at += 12 + (name + 3 & ~3) + (desc + 3 & ~3)
	open(sys.argv[2], "wb").write(data)
END
boots "the 64-bit entry of a vmlinux" "$TMP/vmlinux" 'vmlinux, none, entered by 64-bit$'
done_testing
