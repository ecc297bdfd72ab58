#!/bin/bash
# testhost: --cpus 2 --timeout 600 shared
# Options of Linux that take a part of the platform away: the disk is read back all the same. A few, or
# with HOSPES_LONG=1 all. Those that cannot work boot too, and the log says why there is no disk.
. "$(dirname "$0")/../lib.sh"
options=('noapic' 'pci=nomsi' 'pci=nommconf' 'clocksource=acpi_pm no-kvmclock')
none=('pci=noacpi')
if [ "$(times 0 1)" = 1 ]; then
	options+=('acpi=noirq' 'pci=conf1' 'pci=realloc' 'pci=assign-busses' 'pci=noaer'
		'pcie_ports=compat' 'pcie_aspm=off' 'nosmp' 'maxcpus=1' 'nox2apic' 'nokaslr' 'swiotlb=force'
		'no-kvmapf' 'tsc=unstable' 'noapictimer' 'acpi=ht')
	none+=('acpi=off' 'nolapic' 'noapic pci=nomsi')
fi
plan $((${#options[@]} + 2 * ${#none[@]}))

head -c 1M /dev/zero | tr '\0' 'x' >"$TMP/disk"
printf 'from the disk\n' | dd of="$TMP/disk" bs=512 seek=2000 conv=notrunc status=none
boot() { # NAME OPTIONS
	guest_start "$1" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 256M \
		--cpus 2 --disk "path=$TMP/disk,readonly=on" --cmdline \
		"console=ttyS0 quiet $2 hospes.sh=\"dd if=/dev/vda bs=512 skip=2000 count=1 | head -n 1; echo done\""
}
for option in "${options[@]}"; do
	boot with "$option"
	ok "$option" guest_wait_for with '^from the disk' 60 || guest_show with
	# Some cannot power off.
	guest_kill with
done
for option in "${none[@]}"; do
	boot without "$option"
	ok "$option: it boots" guest_wait_for without '^done' 90 || guest_show without
	like "$(guest_log without)" "'${option%% *}'.*leave" "$option: the log names it"
	guest_kill without
done
