#!/bin/bash
# testhost: --memory 5G --timeout 600 destructive
# A VF of a network card and a virtio-net device, both behind the virtual IOMMU: iperf3 both ways, strict
# with one vCPU and lazy with four.
. "$(dirname "$0")/lib.sh"
pf=$(device 8086:10c9) || skip_all "needs an igb"
ok "a VF appears" vfs_create "$pf" 1
vf=$(vfs "$pf")
vfio_bind "$vf" || bail "$vf does not bind to vfio-pci"
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
ip tuntap add tap0 mode tap && ip addr add 10.8.0.1/24 dev tap0 && ip link set tap0 up || bail "no tap"
iperf3 -s -D --logfile /dev/null

# eth0 is whichever was probed first, so each address goes to the one whose driver it is.
work='for n in /sys/class/net/eth*; do case $(basename $(readlink $n/device/driver)) in igbvf) a=10.9.0.2/24;; *) a=10.8.0.2/24;; esac;
	ip addr add $a dev ${n##*/}; ip link set ${n##*/} up; done;
	for to in 10.9.0.1 10.8.0.1; do i=0; until ping -c 1 -W 1 $to >/dev/null || [ $i = 20 ]; do i=$((i + 1)); done;
	for way in --no-delay -R; do iperf3 -f m -t 1 -c $to $way | sed -n s/receiver/$way\ $to/p; done; done'
# guest NAME KERNEL INITRD-ARG… -- CPUS APPEND
guest() {
	local name=$1 cpus=$2 append=$3
	shift 3
	guest_start "$name" hospes run "$@" --memory 512M --cpus "$cpus" --verbose --viommu \
		--disk "path=$HOSPES_GUEST_DISK,readonly=on" --net tap=tap0,viommu=on \
		--passthrough "$vf,strategy=strict" --cmdline "console=ttyS0 quiet root=/dev/vda ro \
init=/usr/lib/hospes/init $append hospes.sh=\"${work//$'\n\t'/ }; $idle\""
	settled "$name" 200 "$vf"
	guest_wait "$name" 60
	is $? 0 "$name: the guest powers off" || guest_show "$name" 60
	log=$(guest_log "$name" | tr -d '\r')
	for to in 10.9.0.1 10.8.0.1; do
		for way in --no-delay -R; do
			like "$log" "[1-9][0-9.]* [KMG]Bytes .* $way $to" \
				"$name: ${to/10.9.0.1/the VF}, iperf3 $way" || guest_show "$name" 40
		done
	done
	like "$log" 'viommu: [1-9][0-9]* maps, [1-9][0-9]* unmaps, 0 refused, 0 faults' "$name: mapped and unmapped, no faults"
}
guest strict 1 iommu.strict=1 --kernel "$HOSPES_GUEST_BZIMAGE"
guest lazy 4 iommu.strict=0 --kernel "$HOSPES_GUEST_BZIMAGE"
unlike "$(dmesg)" 'DMAR:.*fault addr' "the host's IOMMU saw no fault either"
done_testing
