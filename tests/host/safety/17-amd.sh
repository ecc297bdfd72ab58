#!/bin/bash
# testhost: --profile amd --memory 5G --timeout 400 destructive
# The same on a host with AMD's IOMMU, as far as QEMU 10 emulates it (it reports no faults): a guest with a
# controller of the host, with each backend and behind an IOMMU of its own; DMA to memory of another machine.
. "$(dirname "$0")/lib.sh"
edu=$(device 1234:11e8) || skip_all "no edu device"
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
with_vfio "$edu" "$nvme"

like "$(hospes iommu list)" '^ivhd0 +AMD-Vi, [0-9]+ devices' "the IOMMU is AMD's"
ok "explain finds no blocker" hospes device explain "$nvme"
like "$(hospes device explain "$nvme")" '^  ok +interrupts +remapped' "interrupts are remapped"

check='dd if=/dev/urandom of=/tmp/x bs=64k count=64 && dd if=/tmp/x of=/dev/nvme0n1 bs=64k oflag=direct && dd if=/dev/nvme0n1 bs=64k count=64 iflag=direct | cmp - /tmp/x && echo SAME'
reads() { # NAME CMDLINE ARG…
	local name=$1 line=$2
	shift 2
	guest_start "$name" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
		--memory 256M "$@" --cmdline "console=ttyS0 quiet $line hospes.sh=\"$check\""
	guest_wait "$name" 100
	is $? 0 "$name: the guest ends well" || guest_show "$name"
	like "$(guest_log "$name" | tr -d '\r')" '^SAME' "$name: and reads what it wrote" || guest_show "$name"
}
reads iommufd '' --passthrough "$nvme" --iommu iommufd
reads type1 '' --passthrough "$nvme" --iommu type1
reads strict iommu.strict=1 --viommu --passthrough "$nvme,strategy=strict"

attackers
start neighbour --memory 128M
say neighbour 'canary neighbour of the attacker' '^canary at' >/dev/null
start attacker --memory 96M --passthrough "$edu"
own=$(say attacker 'canary its own' '^canary at' | cut -d' ' -f3)
say attacker "write $own" '^wrote' >/dev/null
like "$(say attacker look '^page ')" '^page changed' "the attack works on the guest's own memory ($own)"
read -r hva hpa < <(memory "${guest_pid[neighbour]}" find 'neighbour of the attacker')
ok "the neighbour's page is found (hva $hva, hpa $hpa)" test "$((hpa))" -gt $((96 << 20))
canary=$(memory "${guest_pid[neighbour]}" read "$hva" 64)
for at in "$hpa" "$hva"; do
	like "$(say attacker "write $at" '^wrote')" '^wrote' "the attacker writes to $at"
done
is "$(memory "${guest_pid[neighbour]}" read "$hva" 64)" "$canary" "the neighbour's page is as it was"
say attacker "read $hpa" '^read' >/dev/null
unlike "$(say attacker bytes '^buffer ')" "$(printf 'neighbou' | xxd -p)" "nor does it get into the device"
for name in attacker neighbour; do
	guest_send "$name" end
	guest_wait "$name" 60
	is $? 0 "$name ends well" || guest_show "$name"
done
host_is_well
done_testing
