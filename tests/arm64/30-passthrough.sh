#!/bin/bash
# testhost: --timeout 900
# A guest on arm64 drives an NVMe controller and a VF itself: its DMA goes through the host's SMMU, its messages
# through KVM's ITS.
. "$(dirname "$0")/../host/lib.sh"
destructive

nvme=$(device 1b36:0010 0) && pf=$(device 8086:10c9) || skip_all "needs an NVMe controller and an igb"
plan 7

dd if=/dev/urandom of=/dev/nvme0n1 bs=1M count=4 oflag=direct status=none
sum=$(head -c 4M /dev/nvme0n1 | md5sum | cut -d' ' -f1)
ip link set "$(netdev "$pf")" up
ip addr add 10.8.0.1/24 dev "$(netdev "$pf")"
vfs_create "$pf" 1 || bail "no VF"
vf=$(vfs "$pf" | head -n 1)
for d in "$nvme" "$vf"; do ok "$d is VFIO's" vfio_bind "$d"; done

out=$(hospes device explain "$nvme" --memory 512M 2>&1)
unlike "$out" BLOCKER "preflight finds nothing in the way"
ok "a guest with both powers off" timeout 400 hospes run --kernel "$HOSPES_GUEST_IMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--memory 512M --cpus 2 --passthrough "$nvme" --passthrough "$vf" --cmdline 'console=ttyS0 quiet hospes.ip=10.8.0.2/24 hospes.sh="head -c 4194304 /dev/nvme0n1 | md5sum; echo mark | dd of=/dev/nvme0n1 bs=512 count=1 conv=sync,fsync; ping -c 3 -W 5 10.8.0.1; cat /proc/interrupts"' \
	</dev/null >"$TMP/out" 2>&1 || diag "$(tail -n 40 "$TMP/out")"
log=$(tr -d '\r' <"$TMP/out")
like "$log" "^$sum" "what it reads of the disk is right"
like "$log" 'ITS-PCI-MSIX.*nvme0q1' "messages go through the ITS"
like "$log" ' 0% packet loss' "the VF reaches its PF"
