#!/bin/bash
# testhost: --timeout 200 destructive
# The expansion ROM of a device reaches the guest byte by byte when it is asked for, and not otherwise.
. "$(dirname "$0")/../lib.sh"
destructive
edu=$(device 1234:11e8) || skip_all "no edu device"
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
plan 6

rom=/sys/bus/pci/devices/$edu/rom
echo 1 >"$rom"
wanted=$(sha256sum <"$rom")
bytes=$(wc -c <"$rom")
echo 0 >"$rom"
ok "the host reads a ROM of $bytes bytes" test "$bytes" -ge 2048
vfio_bind "$edu" && vfio_bind "$nvme" || bail "cannot bind to vfio-pci"

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
for d in /sys/bus/pci/devices/*; do
	[ "$(cat $d/vendor) $(cat $d/device)" = '0x1234 0x11e8' ] || continue
	[ -e $d/rom ] || { echo NO ROM; continue; }
	echo 1 >$d/enable; echo 1 >$d/rom
	echo "ROM $(sha256sum <$d/rom)"
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
run=(hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M
	--cmdline 'console=ttyS0 quiet')

guest_start with "${run[@]}" --passthrough "$edu,rom=on"
guest_wait with 90
is $? 0 "a guest with the ROM ends well" || guest_show with
like "$(guest_log with | tr -d '\r')" "^ROM $wanted" "it reads the same bytes" || guest_show with

guest_start without "${run[@]}" --passthrough "$edu"
guest_wait without 90
like "$(guest_log without)" '^NO ROM' "without rom=on there is none" || guest_show without

guest_start none "${run[@]}" --passthrough "$nvme,rom=on"
guest_wait none 90
is $? 1 "a device without one: status 1"
like "$(guest_log none)" "no expansion ROM .*leave out rom=on" "and a line that says what to do"
