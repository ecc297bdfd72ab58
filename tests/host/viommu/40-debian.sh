#!/bin/bash
# testhost: --memory 5G --timeout 500 destructive
# Debian's unmodified kernel, its virtio-iommu driver a module: a disk and an NVMe controller of the host
# behind the virtual IOMMU verify what was written, buffer by buffer.
. "$(dirname "$0")/lib.sh"
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
vfio_bind "$nvme" || bail "$nvme does not bind to vfio-pci"
truncate -s 64M "$TMP/data.img"
verify='fio --direct=1 --ioengine=libaio --iodepth=8 --size=4M --bs=16k --rw=randwrite --verify=crc32c --verify_fatal=1 --name=v'
guest_start debian hospes run --kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD" --viommu \
	--cpus 2 --memory 512M --verbose --disk "path=$HOSPES_GUEST_DISK,readonly=on" \
	--disk "path=$TMP/data.img,viommu=on" --passthrough "$nvme,strategy=strict" \
	--cmdline "console=ttyS0 quiet iommu.strict=1 root=/dev/vda ro init=/usr/lib/hospes/init hospes.sh=\"uname -r; \
cat /sys/kernel/iommu_groups/*/type; $verify --filename=/dev/nvme0n1; $verify --filename=/dev/vdb; $idle\""
settled debian 400 "$nvme"
guest_wait debian 60
is $? 0 "Debian's kernel powers off" || guest_show debian 80
log=$(guest_log debian | tr -d '\r')
like "$log" '^6\.[0-9.]+.*-amd64' "it is Debian's"
is "$(grep -c '^DMA$' <<<"$log")" 2 "both devices are translated, each unmap at once"
is "$(grep -c 'err= 0' <<<"$log")" 2 "fio reads back what it wrote" || guest_show debian 80
like "$log" 'viommu: [0-9]{4,} maps, [0-9]{4,} unmaps, 0 refused, 0 faults' "buffer by buffer, no faults"
unlike "$log" 'Call Trace|verify:' "nothing to complain of"
done_testing
