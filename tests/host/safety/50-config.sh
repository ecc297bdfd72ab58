#!/bin/bash
# testhost: --memory 5G --timeout 1500 destructive
# A guest writes to every config byte and BAR register of an NVMe controller and a VF, their MSI-X tables
# in every order, puts their BARs over RAM and over each other, then does it all by chance (30 s; 300 with
# HOSPES_LONG=1; HOSPES_TEST_SEED=N repeats it): hospes ends well, nothing leaks, the devices are intact.
. "$(dirname "$0")/lib.sh"
nvme=$(device 1b36:0010 0) && pf=$(device 8086:10c9) || skip_all "needs an NVMe controller and an igb"
attack=$HOSPES_BUILD/tests/payload/attack/attack.elf
[ -e "$attack" ] || skip_all "hospes was built without its tests"
vfs_create "$pf" 1 || bail "no VF appears"
vf=$(vfs "$pf")
with_vfio "$nvme" "$vf"

# What a driver would find: all of the header but its status and command.
real() { for d in "$nvme" "$vf"; do lspci -xxx -s "$d" | sed -n 's/^00: \(.. .. .. ..\) .. .. .. ../\1/p; /^[123]0:/p'; done; }
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
dd if=/dev/urandom of=/tmp/in bs=64k count=16 2>/dev/null
dd if=/tmp/in of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null
dd if=/dev/nvme0n1 of=/tmp/out bs=64k count=16 iflag=direct 2>/dev/null
cmp /tmp/in /tmp/out && echo "disk good"
ls /sys/bus/pci/drivers/igbvf/*/net
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
works() {
	guest_start linux hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M \
		--passthrough "$nvme" --passthrough "$vf" --cmdline 'console=ttyS0 quiet'
	guest_wait linux 90
	is $? 0 "$1: a guest has the devices and powers off" || guest_show linux
	like "$(guest_log linux | tr -d '\r')" '^disk good' "$1: its disk works"
	like "$(guest_log linux | tr -d '\r')" '^eth' "$1: its driver takes the VF"
}

works "before"
before=$(real) pins=$(pinned) tables=$(io_tables)
seed=${HOSPES_TEST_SEED:-$RANDOM} seconds=$(times 20 100)
diag "HOSPES_TEST_SEED=$seed"
dmesg -C
# By chance the guest may tell the controller to write over the guest itself: it may crash, hospes not.
for ((i = 0; i < $(times 1 4); i++)); do
	guest_start attack hospes run --kernel "$attack" --memory 64M --on-reset stop --verbose \
		--passthrough "$nvme" --passthrough "$vf" --cmdline "seconds=$seconds seed=$((seed + i))"
	guest_wait attack $((seconds * 6 + 90))
	status=$?
	log=$(guest_log attack | tr -d '\r\0')
	like "$log" '^attack: placed [1-9][0-9]* BARs, tried [1-9]' "seed $((seed + i)): BARs and MSI-X in every order" ||
		guest_show attack
	is "$(grep -acxE 'attack: function (1b36:0010|8086:10ca)' <<<"$log")" 2 "seed $((seed + i)): of both devices"
	like "$log" '^attack: wrote every register' "seed $((seed + i)): and each register and byte of them"
	ok "seed $((seed + i)): hospes ends by itself (status $status)" test "$status" = 0 -o "$status" = 3 ||
		guest_show attack
	unlike "$log" 'AddressSanitizer|runtime error|KVM_RUN.*(EFAULT|Bad address)' "seed $((seed + i)): and well"
	retry 5 pins_are "$pins"
	is "$(pinned)" "$pins" "seed $((seed + i)): nothing stays pinned"
	ok "seed $((seed + i)): I/O page tables are as they were" retry 5 tables_are "$tables"
done
is "$(real)" "$before" "the host's devices have the registers they had"
works "after"
host_is_well
vfio_unbind "$nvme"
ok "the host's driver takes the controller again" retry 20 test -b /dev/nvme0n1
done_testing
