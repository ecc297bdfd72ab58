#!/bin/bash
# testhost: --memory 5G --timeout 3000 destructive long=4
# hospes is killed at random moments, of its start and under load, 6 times (HOSPES_LONG=1: four times 50):
# each time the next machine has the NVMe controller and the VF at once, and the kernel's pins and I/O
# page tables are back where they were. HOSPES_TEST_SEED=N repeats the moments.
. "$(dirname "$0")/lib.sh"
nvme=$(device 1b36:0010 0) && pf=$(device 8086:10c9) || skip_all "needs an NVMe controller and an igb"
vfs_create "$pf" 1 || bail "no VF appears"
vf=$(vfs "$pf")
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
with_vfio "$nvme" "$vf"

cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
(read -r line; touch /tmp/end) </dev/ttyS0 &
for d in /sys/bus/pci/drivers/igbvf/*/net/*; do net=${d##*/}; done
ip link set "$net" up
ip addr add 10.9.0.2/24 dev "$net"
until ping -c 1 -W 1 10.9.0.1 >/dev/null; do :; done
ping -A -s 1400 10.9.0.1 >/dev/null &
dd if=/dev/urandom of=/tmp/in bs=64k count=8 2>/dev/null
n=0
while [ ! -e /tmp/end ]; do
	dd if=/tmp/in of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null &&
		dd if=/dev/nvme0n1 of=/tmp/out bs=64k count=8 iflag=direct 2>/dev/null &&
		cmp -s /tmp/in /tmp/out && ping -c 1 -W 5 10.9.0.1 >/dev/null && n=$((n + 1)) && echo "round $n"
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
start() {
	guest_start vm hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M \
		--cpus 2 --iommu "$1" --passthrough "$nvme" --passthrough "$vf" --cmdline 'console=ttyS0 quiet'
}
# Up to N milliseconds, or until the machine has ended by itself, which it must not.
a_while() {
	local ms=$((RANDOM % $1))
	timeout "$((ms / 1000)).$(printf %03d $((ms % 1000)))" tail -f -s 0.1 --pid="${guest_pid[vm]}" /dev/null
	[ $? = 124 ]
}

RANDOM=${HOSPES_TEST_SEED:=$RANDOM}
diag "HOSPES_TEST_SEED=$HOSPES_TEST_SEED"
pins=$(pinned) tables=$(io_tables) n=$(times 6 50)
# Every second one is killed somewhere in its start, the next one then has to work.
for ((i = 1; i <= n; i++)); do
	backend=iommufd
	[ $((i % 4)) -gt 1 ] || backend=type1
	start "$backend"
	good=1
	if [ $((i % 2)) = 0 ]; then
		guest_wait_for vm '^round 1' 60 || good=0
		a_while 600 || good=0
	else
		a_while 2500 || good=0
	fi
	[ "$good" = 1 ] || { fail "$backend, machine $i does not work"; guest_show vm; break; }
	guest_kill vm
	[ $((i % 20)) != 0 ] || diag "$i killed"
	retry 5 pins_are "$pins" || { fail "machine $i: $(pinned) pins are left of $pins"; break; }
	retry 5 tables_are "$tables" || { fail "machine $i: I/O page tables $(io_tables) KiB, not $tables"; break; }
done
is $((i - 1)) "$n" "killed $n times, each time all was given back"
start auto
ok "the devices work in the next machine" guest_wait_for vm '^round 3' 60
guest_send vm end
guest_wait vm 60
is $? 0 "which powers off" || guest_show vm
is "$(pinned)" "$pins" "pins are balanced"
ok "I/O page tables are as they were ($tables KiB)" retry 5 tables_are "$tables"
host_is_well
done_testing
