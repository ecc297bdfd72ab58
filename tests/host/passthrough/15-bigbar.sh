#!/bin/bash
# testhost: --profile bigbar --memory 4G --timeout 120 destructive
# A BAR of 16 GiB: the window of 64-bit BARs has room for it, and the guest's kernel takes it as it is.
. "$(dirname "$0")/../lib.sh"
destructive
big=$(device 1b36:0005) || skip_all "no device with a large BAR"
plan 5

ok "it is VFIO's" vfio_bind "$big"
start=$SECONDS
guest_start big hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 256M \
	--passthrough "$big" --cmdline 'console=ttyS0 hospes.sh="for d in /sys/bus/pci/devices/*; do grep -q 0x1b36 $d/vendor && grep -q 0x0005 $d/device && cat $d/resource; done"'
guest_wait big 100
is $? 0 "the guest powers off" || guest_show big 60
log=$(guest_log big | tr -d '\r')
found=
while read -r first last _; do
	[ $((last - first + 1)) = $((16 << 30)) ] && found=$first
done < <(grep -E '^0x[0-9a-f]{16} 0x[0-9a-f]{16} 0x' <<<"$log")
ok "the guest has a BAR of 16 GiB (${found:-none})" test -n "$found"
unlike "$log" "can.t (claim|assign)|failed to assign|no space for" "its kernel has nothing to complain of"
ok "and it took no longer than any start ($((SECONDS - start)) s)" test $((SECONDS - start)) -lt 60
