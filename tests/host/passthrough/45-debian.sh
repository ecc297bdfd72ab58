#!/bin/bash
# testhost: --memory 5G --timeout 400 destructive
# Debian's unmodified kernel drives a passed-through NVMe controller and a VF with its own modules: fio
# reads back what it wrote, the network reaches the PF.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) && nvme=$(device 1b36:0010) || skip_all "needs an igb and an NVMe controller"
plan 9
ok "a VF appears" vfs_create "$pf" 1
vf=$(vfs "$pf")
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
for d in "$nvme" "$vf"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done

verify='fio --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --iodepth=8 --size=8M --verify=crc32c --verify_fatal=1'
guest_start debian hospes run --kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD" \
	--cpus 2 --memory 512M --verbose --disk "path=$HOSPES_GUEST_DISK,readonly=on" \
	--passthrough "$nvme" --passthrough "$vf" --cmdline "console=ttyS0 quiet root=/dev/vda ro \
init=/usr/lib/hospes/init hospes.ip=10.9.0.2/24 hospes.sh=\"uname -r; lspci -k; \
$verify --name=random --rw=randwrite --bs=4k; $verify --name=whole --rw=write --bs=128k; \
i=0; until ping -c 1 -W 1 10.9.0.1 >/dev/null || [ \$i = 20 ]; do i=\$((i + 1)); done; \
ping -q -c 4 10.9.0.1; ethtool eth0; grep -E 'nvme|eth' /proc/interrupts\""
guest_wait debian 400
is $? 0 "Debian's kernel powers off" || guest_show debian 80
log=$(guest_log debian | tr -d '\r')
like "$log" '^6\.[0-9.]+.*-amd64' "it is Debian's"
like "$log" 'driver in use: nvme' "its nvme driver has the controller"
like "$log" 'driver in use: igbvf' "its igbvf driver has the VF"
is "$(grep -c 'err= 0' <<<"$log")" 2 "fio reads back what it wrote" || guest_show debian 80
like "$log" 'Link detected: yes' "the VF has a link"
like "$log" '^4 packets transmitted, 4 received' "and reaches the PF"
unlike "$log" 'completion polled|Call Trace|verify:' "nothing to complain of"
