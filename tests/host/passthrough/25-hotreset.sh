#!/bin/bash
# testhost: --profile functions --memory 5G --timeout 300 destructive
# Two functions of a card that has no reset but that of its bus, by the set that the kernel names: what was
# in their registers is gone when a machine gets them, and again when it has ended.
. "$(dirname "$0")/../lib.sh"
destructive
a=$(device 8086:100e 0) && b=$(device 8086:100e 1) || skip_all "no card of two functions without a reset"
for d in "$a" "$b"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done
is "$(iommu_group "$a")" "$(iommu_group "$b")" "they are in one group"
unlike "$(cat "/sys/bus/pci/devices/$b/reset_method" 2>/dev/null)" . "the kernel cannot reset one of them"
like "$(hospes device explain "$a" --memory 128M)" 'together with the 1 other function of its bus, which VFIO has too' \
	"explain says how it is reset"

# register BDF [VALUE]: read or write the first entry of its table of multicast addresses (MTA).
cat >"$TMP/register.py" <<'PYTHON'
import mmap, os, struct, sys
fd = os.open(f"/sys/bus/pci/devices/{sys.argv[1]}/resource0", os.O_RDWR)
page = mmap.mmap(fd, 4096, offset=0x5000)
if len(sys.argv) > 2:
    struct.pack_into("<I", page, 0x200, int(sys.argv[2], 0))
print(hex(struct.unpack_from("<I", page, 0x200)[0]))
PYTHON
register() { setpci -s "$1" COMMAND=2:2 && python3 "$TMP/register.py" "$@"; }
# In the guest, the same.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
for d in /sys/bus/pci/devices/*; do
	[ "$(cat $d/vendor) $(cat $d/device)" = '0x8086 0x100e' ] || continue
	base=$(head -n 1 $d/resource | cut -d' ' -f1)
	echo 1 >$d/enable
	at=$((base + 0x5200))
	echo "found $(devmem $at 32)"
	devmem $at 32 0x5ec2e7
	echo "left $(devmem $at 32)"
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

for backend in iommufd type1; do
	for d in "$a" "$b"; do is "$(register "$d" 0xabcdef)" 0xabcdef "$backend: $d has something in a register"; done
	guest_start vm hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M --verbose \
		--iommu "$backend" --passthrough "$a" --passthrough "$b" --cmdline 'console=ttyS0 quiet iomem=relaxed'
	guest_wait vm 90
	is $? 0 "$backend: a guest has both, and powers off" || guest_show vm 60
	log=$(guest_log vm | tr -d '\r')
	unlike "$log" 'cannot be reset|can be reset only' "$backend: hospes could reset them"
	is "$(grep -ac '^found 0x00000000' <<<"$log")" 2 "$backend: the guest finds nothing in either"
	is "$(grep -ac '^left 0x005EC2E7' <<<"$log")" 2 "$backend: and leaves something"
	for d in "$a" "$b"; do is "$(register "$d")" 0x0 "$backend: afterwards there is nothing in $d"; done
done
unlike "$(dmesg)" 'BUG:|Call Trace' "the host has nothing to complain of"
done_testing
