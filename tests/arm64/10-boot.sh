#!/bin/bash
# testhost: --timeout 1800
# Linux boots to user space on arm64, from each form of a kernel, with its devices; it resets and powers off by PSCI;
# what hospes cannot do there is refused by its name.
. "$(dirname "$0")/../host/lib.sh"

# boot NAME ARG…: a guest that ends by itself; its console is in $TMP/NAME.
boot() {
	local name=$1 status
	shift
	timeout 300 hospes run "$@" </dev/null >"$TMP/$name" 2>&1
	status=$?
	[ "$status" = 0 ] || diag "$(tail -n 40 "$TMP/$name")"
	return "$status"
}

# shows NAME REGEX WHAT
shows() { like "$(tr -d '\r' <"$TMP/$1")" "$2" "$3"; }

small=(--initrd "$HOSPES_GUEST_INITRD" --memory 256M)
for kind in IMAGE IMAGE_GZ ZBOOT; do
	kernel=HOSPES_GUEST_$kind
	ok "$kind: it powers off" boot "$kind" --kernel "${!kernel}" "${small[@]}" \
		--cmdline 'console=ttyS0 quiet hospes.test=hello'
	shows "$kind" '^hello from' "$kind: user space was reached"
done

# shellcheck disable=SC2016 # for the guest
for cpus in 1 2 4; do
	ok "$cpus vCPUs: it powers off" boot "cpus$cpus" --kernel "$HOSPES_GUEST_IMAGE" "${small[@]}" --cpus "$cpus" \
		--cmdline 'console=ttyS0 quiet hospes.sh="echo cpus $(grep -c ^processor /proc/cpuinfo); dmesg"'
	shows "cpus$cpus" "^cpus $cpus\$" "$cpus vCPUs: the guest has them"
	unlike "$(cat "$TMP/cpus$cpus")" 'Call Trace|Call trace|Firmware Bug|OF: .*(error|invalid)|can.t claim' \
		"$cpus vCPUs: the kernel has nothing to complain of"
done

cp "$HOSPES_GUEST_DISK" "$TMP/disk"
ip tuntap add tap0 mode tap
ip addr add 10.9.0.1/24 dev tap0
ip link set tap0 up
ok "with a disk, a network and a source of random numbers it powers off" boot devices \
	--kernel "$HOSPES_GUEST_IMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 512M --cpus 2 \
	--disk path="$TMP/disk" --net tap=tap0,mac=52:54:00:00:00:01 --rng \
	--cmdline 'console=ttyS0 quiet hospes.ip=10.9.0.2/24 hospes.sh="mount /dev/vda /mnt && echo written >/mnt/mark; umount /mnt; ping -c 2 -W 5 10.9.0.1; head -c 8 /dev/hwrng | wc -c; cat /proc/interrupts"'
shows devices ' 0% packet loss' "the network answers"
shows devices '^8$' "random numbers come"
shows devices 'ITS-PCI-MSIX.*virtio0-req' "messages go through the ITS"
mkdir "$TMP/mnt"
mount -o loop,ro "$TMP/disk" "$TMP/mnt"
is "$(cat "$TMP/mnt/mark")" written "what the guest wrote is on the disk"
umount "$TMP/mnt"

ok "a guest on its disk powers off" boot on-disk --kernel "$HOSPES_GUEST_IMAGE" --memory 256M --disk path="$TMP/disk" \
	--cmdline 'console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.test=hello'
shows on-disk '^hello from' "it ran what is on the disk"

# The mark on the disk says which time it is; each time the kernel is somewhere else.
ok "a guest that resets comes up again, and powers off" boot reset --kernel "$HOSPES_GUEST_IMAGE" --memory 256M \
	--initrd "$HOSPES_GUEST_INITRD" --cpus 2 --disk path="$TMP/disk" --cmdline 'console=ttyS0 quiet hospes.end=hang hospes.sh="mount /dev/vda /mnt; grep _stext$ /proc/kallsyms; if [ -e /mnt/second ]; then umount /mnt; poweroff -f; else : >/mnt/second; umount /mnt; reboot -f; fi"'
is "$(grep -c 'HOSPES-GUEST: up' "$TMP/reset")" 2 "it came up twice"
is "$(grep -a ' _stext' "$TMP/reset" | tr -d '\r' | sort -u | wc -l)" 2 "at two addresses"

refused() { # KEY ARG…
	local key=$1 out
	shift
	out=$(timeout 60 hospes run --kernel "$HOSPES_GUEST_IMAGE" --memory 256M "$@" 2>&1 </dev/null)
	like "$out" "$key: guests on arm64 cannot have that yet" "$key is refused by its name"
}
refused cpus.max --cpus 1,max=2
refused viommu --viommu
refused gdb --gdb "$TMP/gdb"
refused smbios --smbios serial=1
printf 'MZ%0200d' 0 >"$TMP/none"
like "$(hospes run --kernel "$TMP/none" --memory 256M 2>&1)" 'no arm64 kernel' "a file that is no kernel is refused"
head -c 3000000 "$HOSPES_GUEST_IMAGE_GZ" >"$TMP/cut.gz"
like "$(hospes run --kernel "$TMP/cut.gz" --memory 256M 2>&1)" 'damaged' "one that is cut short is, too"
done_testing
