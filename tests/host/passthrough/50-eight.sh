#!/bin/bash
# testhost: --memory 5G --timeout 300 destructive
# Eight devices in one guest: two NVMe controllers, edu, and five VFs of one card, each in an address space of
# its own. Their drivers take them, the disks hold what is written, the VFs reach the PF.
. "$(dirname "$0")/../lib.sh"
destructive
nvme0=$(device 1b36:0010 0) && nvme1=$(device 1b36:0010 1) && pf=$(device 8086:10c9) && edu=$(device 1234:11e8) ||
	skip_all "needs two NVMe controllers, an edu and an igb"
vfs_create "$pf" 5 || bail "no VFs appear"
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
mapfile -t devices < <(echo "$nvme0"; echo "$nvme1"; echo "$edu"; vfs "$pf")
is "${#devices[@]}" 8 "there are eight devices"
arguments=()
for d in "${devices[@]}"; do
	vfio_bind "$d" || bail "$d does not bind to vfio-pci"
	arguments+=(--passthrough "$d")
done

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
dd if=/dev/urandom of=/tmp/in bs=64k count=16 2>/dev/null
for disk in /dev/nvme[0-9]n1; do
	dd if=/tmp/in of=$disk bs=64k conv=fsync 2>/dev/null
	echo 3 >/proc/sys/vm/drop_caches
	dd if=$disk of=/tmp/out bs=64k count=16 2>/dev/null
	cmp /tmp/in /tmp/out && echo "disk good"
done
grep -l 0x11e8 /sys/bus/pci/devices/*/device | sed 's/.*/edu there/'
n=1
for d in /sys/bus/pci/drivers/igbvf/*/net/*; do
	[ -e "$d" ] || continue
	n=$((n + 1)) net=${d##*/}
	ip link set "$net" up
	ip addr add "10.9.0.$n/32" dev "$net"
	ip route replace 10.9.0.1/32 dev "$net" src "10.9.0.$n"
	i=0
	until ping -c 1 -W 1 -I "$net" 10.9.0.1 >/dev/null || [ $i = 20 ]; do i=$((i + 1)); done
	[ $i = 20 ] || echo "network good"
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
for backend in iommufd type1; do
	guest_start "$backend" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 256M \
		--verbose --iommu "$backend" "${arguments[@]}" --cmdline 'console=ttyS0 quiet'
	guest_wait "$backend" 120
	is $? 0 "$backend: the guest has them, and powers off" || guest_show "$backend" 60
	log=$(guest_log "$backend" | tr -d '\r')
	is "$(grep -ac "^hospes: .*: in the guest as 'passthrough" <<<"$log")" 8 "$backend: eight address spaces"
	is "$(grep -ac '^disk good' <<<"$log")" 2 "$backend: both disks hold what was written"
	is "$(grep -ac '^network good' <<<"$log")" 5 "$backend: all five VFs reach the PF" || guest_show "$backend" 60
	is "$(grep -ac '^edu there' <<<"$log")" 1 "$backend: edu is there"
	unlike "$log" 'Call Trace|timeout, completion polled' "$backend: the guest has nothing to complain of"
done
unlike "$(dmesg)" 'DMAR:.*fault addr|BUG:|Call Trace' "nor has the host"
done_testing
