#!/bin/bash
# testhost: destructive --profile nvmevf --timeout 120
# A PF that is no network card: VFs come and go the same way, and there is nothing to set.
. "$(dirname "$0")/../lib.sh"
destructive
sys=/sys/bus/pci/devices
for pf in $(lspci -D -n -d 1b36:0010 | cut -d' ' -f1) none; do
	[ "$(cat "$sys/$pf/sriov_totalvfs" 2>/dev/null || echo 0)" = 0 ] || break
done
[ "$pf" != none ] || skip_all "no nvme controller with SR-IOV"
plan 11

before=$(cat "$sys/$pf/sriov_drivers_autoprobe")
out=$(hospes vf create "$pf" --count 2)
is $? 0 "two VFs of an NVMe controller"
is "$out" "$(vfs "$pf")" "their addresses are printed"
is "$(cat "$sys/$pf/sriov_drivers_autoprobe")" "$before" "autoprobe is as it was"
vf=$(head -n 1 <<<"$out")
is "$(pci_driver "$vf")" "" "the nvme driver has not taken it"
is "$(hospes vf list "$vf" --json | jq -c '[.mac, .vlan, .trust, .netdev]')" "[null,null,null,null]" \
	"no settings are reported, since there are none"
like "$(hospes vf list)" "^$pf .*driver nvme, interface none, link none, 2 of 2 VFs" "list shows it"
like "$(hospes vf set "$vf" --mac 02:00:00:00:00:01 2>&1)" "its PF $pf has no network interface here" \
	"set says why not"
ok "it is bound" hospes vf bind "$vf"
is "$(pci_driver "$vf")" vfio-pci "to vfio-pci"
ok "they are removed" hospes vf destroy "$pf"
is "$(cat "$sys/$pf/sriov_numvfs")" 0 "and gone"
