#!/bin/bash
# testhost: destructive --timeout 240
# hospes vf on a real card: made, listed, set, bound, kept through what its PF does, removed. What
# hospes says is compared with what iproute2 and sysfs say.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) || skip_all "no igb card"
net=$(netdev "$pf")
sys=/sys/bus/pci/devices

# Of VF N, as iproute2 reads it from the driver.
told() { ip -j link show dev "$net" | jq -r ".[0].vfinfo_list[] | select(.vf == $1) | $2"; }
override() { cat "$sys/$1/driver_override"; }

ok "the PF's interface gets a link" retry 1 ip link set "$net" up
ok "it is there" retry 20 carrier_up "$net"
before=$(cat "$sys/$pf/sriov_drivers_autoprobe")
out=$(hospes vf create "$pf" --count 2)
is $? 0 "two virtual functions are made"
is "$out" "$(vfs "$pf")" "and their addresses printed"
ok "the PF has its link again when that returns" carrier_up "$net"
is "$(cat "$sys/$pf/sriov_drivers_autoprobe")" "$before" "autoprobe is as it was"
mapfile -t vf < <(vfs "$pf")
is "$(pci_driver "${vf[0]}")$(pci_driver "${vf[1]}")" "" "no driver of the host has taken them"

# List.
list=$(hospes vf list)
like "$list" "^$pf .*driver igb, interface $net, link up, 2 of 7 VFs" "list shows the PF"
like "$list" "^  ${vf[1]} " "and the VFs"
json=$(hospes vf list --json)
is "$(jq -r '.[].vfs[].bdf' <<<"$json")" "$out" "--json has the same ones"
is "$(jq -r ".[] | select(.bdf == \"$pf\") | .vfs[1].group" <<<"$json")" "$(iommu_group "${vf[1]}")" \
	"and their groups"
is "$(hospes vf list "${vf[0]#0000:}" --json | jq -r '.index, .driver')" $'0\nnull' \
	"one VF alone, by its short address"

# Set.
ok "all settings of one VF" hospes vf set "${vf[1]}" --mac 02:00:00:00:be:01 --vlan 100 --qos 3 \
	--trust on --spoofchk off --rate 100
is "$(told 1 .address)" 02:00:00:00:be:01 "iproute2 sees the MAC"
is "$(told 1 '.vlan_list[0] | "\(.vlan) \(.qos)"')" "100 3" "the VLAN"
is "$(told 1 '.trust, .spoofchk' | paste -sd' ')" "true false" "trust and spoof check"
is "$(told 1 .rate.max_tx)" 100 "and the rate"
is "$(hospes vf list "${vf[1]}" --json |
	jq -c '[.mac, .vlan, .qos, .trust, .spoofchk, .max_mbps]')" \
	'["02:00:00:00:be:01",100,3,true,false,100]' "so does hospes"
like "$(hospes vf list "${vf[1]}")" "02:00:00:00:be:01  100 p3 +on +off +100 " "in its table too"

is "$(told 0 .vlan_list[0].vlan)" null "the other VF has no VLAN"
ok "VLAN and rate are taken off again" hospes vf set "${vf[1]}" --vlan 0 --rate 0 --json
is "$(told 1 '.vlan_list[0].vlan, .rate.max_tx' | paste -sd' ')" "null 0" "and gone"

# What igb cannot do is said, and what came before it is put back.
out=$(hospes vf set "${vf[0]}" --mac 02:00:00:00:be:02 --link-state disable 2>&1)
is $? 1 "igb has no link state of VFs"
like "$out" "${vf[0]}: the driver igb has no link state of VFs; leave that setting out" "which is said"
unlike "$(told 0 .address)" 02:00:00:00:be:02 "and the MAC is what it was"
out=$(hospes vf set "${vf[0]}" --rate 50:100 2>&1)
like "$out" "does not take rate 50 to 100 Mbit/s: .*least rate" "nor has it a least rate"

# Bind; kept whatever the PF does.
ok "a VF is bound" hospes vf bind "${vf[0]}"
is "$(pci_driver "${vf[0]}") $(override "${vf[0]}")" "vfio-pci vfio-pci" "to vfio-pci, by override"
ok "binding it again is no error" hospes vf bind "${vf[0]}"
ok "its cdev is in the list" test -c "$(hospes vf list "${vf[0]}" --json | jq -r .cdev)"
ok "the PF goes down and comes up" sh -c "ip link set $net down && ip link set $net up"
ok "and has a link" retry 20 carrier_up "$net"
is "$(pci_driver "${vf[0]}")" vfio-pci "the VF is still vfio-pci's"
ok "the PF is reset under it" sh -c "echo 1 >$sys/$pf/reset"
ok "and comes back" retry 20 carrier_up "$net"
is "$(pci_driver "${vf[0]}")" vfio-pci "the VF is still vfio-pci's"
echo 1 >"$sys/$pf/sriov_drivers_autoprobe"
echo "${vf[0]}" >"$sys/${vf[0]}/driver/unbind"
echo "${vf[0]}" >/sys/bus/pci/drivers_probe
is "$(pci_driver "${vf[0]}")" vfio-pci "also when the kernel looks for a driver anew"

# In use.
cdev=$(hospes vf list "${vf[0]}" --json | jq -r .cdev)
exec {held}<>"$cdev"
for verb in "unbind ${vf[0]}" "bind ${vf[0]} --driver igbvf" "destroy $pf"; do
	# shellcheck disable=SC2086 # words
	out=$(hospes vf $verb 2>&1)
	like "$? $out" "^1 .*${vf[0]}:? .*in use by [^ ]+ \(pid [0-9]+\)" "in use: no '${verb%% *}', and by whom"
done
like "$out" "in use by [^ ]+ \(pid $$\)" "it is this process"
like "$(hospes vf list "${vf[0]}" --json | jq -r .user)" "\(pid $$\)" "list says so too"
is "$(vfs "$pf" | wc -l) $(pci_driver "${vf[0]}")" "2 vfio-pci" "nothing has changed"
exec {held}>&-
exec {held}<>"/dev/vfio/$(iommu_group "${vf[0]}")"
like "$(hospes vf destroy "$pf" 2>&1)" "in use by [^ ]+ \(pid $$\)" "an open group counts as well"
exec {held}>&-

# Unbind, a driver of the host, and an interface that is up.
ok "unbound" hospes vf unbind "${vf[0]}"
is "$(pci_driver "${vf[0]}") $(override "${vf[0]}")" " (null)" "it has no driver, and no override"
ok "unbound again: no error" hospes vf unbind "${vf[0]}"
echo pci-stub >"$sys/${vf[0]}/driver_override"
ok "an override made by hand is replaced" hospes vf bind "${vf[0]}" --driver igbvf
is "$(pci_driver "${vf[0]}") $(override "${vf[0]}")" "igbvf igbvf" "by the driver that was asked for"
vnet=$(netdev "${vf[0]}")
ok "its interface is brought up" ip link set "$vnet" up
like "$(hospes vf destroy "$pf" 2>&1)" "its interface $vnet is up; 'ip link set $vnet down' first" \
	"an interface that is up is in use"
like "$(hospes vf bind "${vf[0]}" 2>&1)" "'ip link set $vnet down' first" "bind says the same"
ip link set "$vnet" down
ok "after that it is bound" hospes vf bind "${vf[0]}"
is "$(pci_driver "${vf[0]}")" vfio-pci "to vfio-pci"

ok "they are removed" hospes vf destroy "$pf"
is "$(vfs "$pf" 2>/dev/null | grep -c 0000:)" 0 "and gone"
ok "removed again: no error" hospes vf destroy "$pf"
ok "and the PF has its link" retry 1 carrier_up "$net"
is "$(hospes vf create "${pf#0000:}" --count 7 --json | jq '.vfs | length')" 7 "all seven, as JSON"
hospes vf destroy "$sys/$pf"
is "$(cat "$sys/$pf/sriov_numvfs")" 0 "a path in sysfs names a device too"
done_testing
