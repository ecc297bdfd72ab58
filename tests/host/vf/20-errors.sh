#!/bin/bash
# testhost: destructive --timeout 240
# hospes vf where it cannot work: each case is provoked, says what to do, and leaves things as they were.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) || skip_all "no igb card"
net=$(netdev "$pf")
sys=/sys/bus/pci/devices
edu=$(device 1234:11e8)

# refused STATUS REGEX NAME CMD…: one line on standard error.
refused() {
	local status=$1 regex=$2 name=$3 out rc=0
	shift 3
	out=$("$@" 2>&1) || rc=$?
	like "$rc $out" "^$status hospes: .*$regex" "$name"
	[ "$(wc -l <<<"$out")" = 1 ] || diag "more than one line"
}
user() { setpriv --reuid=1000 --regid=1000 --clear-groups "$@"; }

ip link set "$net" down
refused 1 "interface $net is down, .*'ip link set $net up' first" "PF down" hospes vf create "$pf" --count 2
is "$(cat "$sys/$pf/sriov_numvfs")" 0 "no VF was made"
ip link set "$net" up
retry 20 carrier_up "$net"
refused 1 "99 VFs asked for, 7 are the most" "more than there can be" hospes vf create "$pf" --count 99
refused 1 "no VFs asked for" "none" hospes vf create "$pf" --count 0
refused 2 "is not a number" "no number" hospes vf create "$pf" --count two
refused 2 "--count N is missing" "count left out" hospes vf create "$pf"
refused 2 "unknown option '--mtu'" "an option that there is not" hospes vf set "$pf" --mtu 9000
refused 2 "unknown command 'lsit' .did you mean 'list'" "a misspelt command" hospes vf lsit
refused 1 "$edu: has no SR-IOV" "not a PF" hospes vf create "$edu" --count 1
refused 1 "no such PCI device" "no device" hospes vf create 0000:77:00.0 --count 1
refused 1 "is no PCI device; give its address" "no address" hospes vf create eth0 --count 1
refused 1 "is no virtual function" "settings of a PF" hospes vf set "$pf" --mac 02:00:00:00:00:01
refused 1 "run this as root" "create as an ordinary user" user hospes vf create "$pf" --count 1
is "$(cat "$sys/$pf/sriov_numvfs") $(cat "$sys/$pf/sriov_drivers_autoprobe")" "0 1" "nothing has changed"

hospes vf create "$pf" --count 2 >/dev/null || bail "no VFs"
vf=$(vfs "$pf" | head -n 1)
refused 1 "has 2 VFs already.*'hospes vf destroy $pf'" "VFs are there already" hospes vf create "$pf" --count 3
refused 1 "its PF is $pf" "VFs of a VF" hospes vf create "$vf" --count 1
refused 1 "run this as root, or with CAP_NET_ADMIN" "set as an ordinary user" user hospes vf set "$vf" --vlan 5
refused 1 "cannot change its driver: .*run this as root" "bind as an ordinary user" user hospes vf bind "$vf"
refused 1 "run this as root" "destroy as an ordinary user" user hospes vf destroy "$pf"
like "$(user hospes vf list --json | jq -r '.[0].vfs | length')" 2 "an ordinary user may list"
refused 1 "vlan: 4095 is not within 0 to 4094" "VLAN" hospes vf set "$vf" --vlan 4095
refused 1 "priority \(qos\) is part of a VLAN tag" "priority alone" hospes vf set "$vf" --qos 3
refused 1 "multicast" "MAC of a group" hospes vf set "$vf" --mac 01:00:5e:00:00:01
refused 1 "is not one of: auto, enable, disable" "link state" hospes vf set "$vf" --link-state up
refused 1 "the least, 20 Mbit/s, is above the most, 10" "rate" hospes vf set "$vf" --rate 20:10
refused 1 "at most the speed of the PF's link" "a rate above the link's" hospes vf set "$vf" --rate 99999
refused 1 "the driver mlx77 is not loaded; 'modprobe mlx77' first" "no such driver" \
	hospes vf bind "$vf" --driver mlx77
refused 1 "'../igb' is no name of a driver" "a driver with a path" hospes vf bind "$vf" --driver ../igb

# A driver that does not want it: what was before is there again.
hospes vf bind "$vf" --driver igbvf || bail "no igbvf"
echo >"$sys/$vf/driver_override"
refused 1 "virtio-pci did not take it: No such device" "a driver that refuses" hospes vf bind "$vf" --driver virtio-pci
is "$(pci_driver "$vf") $(cat "$sys/$vf/driver_override")" "igbvf (null)" "the VF has its driver back"
# A failure in the middle, from the system call: override, unbind, bind are the writes.
refused 1 "vfio-pci did not take it: Input/output error" "the bind itself fails" \
	strace -qq -o /dev/null -e trace=write -e inject=write:error=EIO:when=3 hospes vf bind "$vf"
is "$(pci_driver "$vf") $(cat "$sys/$vf/driver_override")" "igbvf (null)" "the VF has its driver back"
refused 1 "igbvf does not let it go: Input/output error" "the unbind fails" \
	strace -qq -o /dev/null -e trace=write -e inject=write:error=EIO:when=2 hospes vf bind "$vf"
is "$(pci_driver "$vf") $(cat "$sys/$vf/driver_override")" "igbvf (null)" "nothing has changed"
mac=$(ip -j link show dev "$net" | jq -r '.[0].vfinfo_list[0].address')
refused 1 "no link state" "the second of two settings fails" \
	hospes vf set "$vf" --vlan 7 --mac 02:00:00:00:be:07 --link-state enable
is "$(ip -j link show dev "$net" | jq -rc '.[0].vfinfo_list[0] | [.address, .vlan_list[0].vlan]')" \
	"[\"$mac\",null]" "the others are put back"

# Creation that fails late.
hospes vf destroy "$pf" || bail "not destroyed"
refused 1 "2 VFs \(driver: igb\): Input/output error" "the kernel refuses the number" \
	strace -qq -o /dev/null -e trace=write -e inject=write:error=EIO:when=2 hospes vf create "$pf" --count 2
is "$(cat "$sys/$pf/sriov_numvfs") $(cat "$sys/$pf/sriov_drivers_autoprobe")" "0 1" "nothing has changed"
# The link is asked for once before, and then until it is back.
refused 1 "after a change of its VFs: rtnetlink: " "waiting for the link fails" \
	strace -qq -o /dev/null -e trace=sendmsg -e inject=sendmsg:error=EIO:when=2+ hospes vf create "$pf" --count 2
is "$(cat "$sys/$pf/sriov_numvfs") $(cat "$sys/$pf/sriov_drivers_autoprobe")" "0 1" "the VFs are gone again"
ok "the PF has its link again" retry 20 carrier_up "$net"

# Two at once: one makes its VFs, the other gets an error, and destroys nothing.
for n in 3 4; do hospes vf create "$pf" --count $n >"$TMP/$n.out" 2>&1 & done
wait
is "$(cat "$TMP"/[34].out | grep -c 'VFs already')" 1 "two at once: one is refused"
like "$(cat "$sys/$pf/sriov_numvfs") $(cat "$sys/$pf/sriov_drivers_autoprobe")" "^[34] 1$" "the other has its VFs"
hospes vf destroy "$pf" || bail "not destroyed"
# Ctrl-C in the middle: it is stopped where it has switched autoprobe off.
strace -qq -o /dev/null -e trace=write -e inject=write:signal=INT:when=1 hospes vf create "$pf" --count 2 >/dev/null
like "$? $(cat "$sys/$pf/sriov_drivers_autoprobe") $(vfs "$pf" | wc -l)" " 1 2$" "a Ctrl-C does not leave half of it"
hospes vf destroy "$pf" || bail "not destroyed"

# A PF whose driver makes none, and one without a driver.
ip link set "$net" down
hospes vf bind "$pf" --driver pci-stub || bail "PF not bound"
refused 1 "its driver makes no VFs" "a driver without SR-IOV" hospes vf create "$pf" --count 1
hospes vf unbind "$pf" || bail "PF not unbound"
refused 1 "has no driver, and only the PF's driver can make VFs" "no driver" hospes vf create "$pf" --count 1

# Disks: a mounted one is not taken away.
nvme=$(device 1b36:0010)
disk=$(basename "$(echo "$sys/$nvme"/nvme/nvme*/nvme*n*)")
mkfs.ext4 -q "/dev/$disk" 64M && mkdir -p "$TMP/mnt" && mount "/dev/$disk" "$TMP/mnt" || bail "no file system"
refused 1 "its disk $disk: mounted at $TMP/mnt" "a mounted disk" hospes vf bind "$nvme"
is "$(pci_driver "$nvme")" nvme "it keeps its driver"
umount "$TMP/mnt"
ok "unmounted, it goes" hospes vf bind "$nvme"
is "$(pci_driver "$nvme")" vfio-pci "to vfio-pci"
done_testing
