#!/bin/bash
# testhost: --timeout 200 destructive
# On a good host: what stands in the way of a device, one thing after the other, and that nothing does
# once the remedies are applied.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "rearranges the emulated host"

pf=$(device 8086:10c9) nvme=$(device 1b36:0010) edu=$(device 1234:11e8)

# Driver.
is "$(blockers "$nvme")" driver "a device with the host's driver: that is all that blocks"
like "$(found blocker driver "$nvme")" "bound to nvme, not vfio-pci => hospes vf bind $nvme" \
	"the driver is named, with the line that binds"
out=$(start "$nvme")
is $? 1 "run does not start then"
ok "and says the same" same "$out" "$nvme" "$(found blocker driver "$nvme")" || diag "$out"
is "$(try "$nvme" iommufd)" "open ENOENT" "the kernel has nothing to open for it"
not_ok "explain's exit status says it" hospes device explain "$nvme"
mkfs.ext4 -q /dev/nvme0n1 && mkdir -p /mnt/x && mount /dev/nvme0n1 /mnt/x
mounted=$(lspci -Dn -d 1b36:0010 | while read -r b _; do
	[ -d "/sys/bus/pci/devices/$b/nvme/nvme0" ] && echo "$b"; done)
like "$(found warning driver "$mounted")" "/dev/nvme0n1 mounted at /mnt/x => umount /mnt/x" \
	"a mounted disk is pointed at"
umount /mnt/x
vfio_bind "$nvme"
is "$(blockers "$nvme")" "" "bound: nothing blocks"
ok "explain's exit status says it" hospes device explain "$nvme" --memory 1G
like "$(start "$nvme" --memory 256M)" '^hello from' "and run starts a guest with it"
is "$(try "$nvme" iommufd 0x40000000)" ok "and the kernel gives it, with iommufd"
is "$(try "$nvme" type1 0x40000000)" ok "and with type1"
like "$(found ok reset "$nvme")" "function-level reset" "its reset is named"
like "$(found warning scrub "$nvme")" "namespaces.*nvme format" "what a reset leaves is said"
like "$(found ok p2p "$nvme")" "^off" "P2P is off"
like "$(found ok interrupts "$nvme")" "^remapped" "interrupts are remapped"
like "$(found ok iommu "$nvme")" "translates 48 bits" "the IOMMU's width"
like "$(found ok reserved "$nvme")" "^0xfee00000-0xfeefffff is the MSI window" "the MSI window"
like "$(found ok aperture "$nvme")" "addresses end at 256 TiB; the guest's memory must end below" "where I/O addresses end"
like "$(found ok mappings "$nvme" --iommu iommufd)" "no limit" "iommufd limits no mappings"
like "$(found ok migration "$nvme")" "not with vfio-pci" "it cannot move"
like "$(found ok kernel "$nvme")" "^iommufd" "the kernel has iommufd"

# In use.
cdev=/dev/vfio/devices/$(basename /sys/bus/pci/devices/"$nvme"/vfio-dev/vfio*)
exec {fd}<>"$cdev"
like "$(found blocker driver "$nvme")" "in use: .*pid $$.* has $cdev open" \
	"who has it open is named"
out=$(start "$nvme")
is $? 1 "run does not start then"
ok "and names it too" same "$out" "$nvme" "$(found blocker driver "$nvme")" || diag "$out"
exec {fd}>&-
is "$(blockers "$nvme")" "" "and free again"

# Interrupts and resets of others.
like "$(found ok msi "$edu")" "^MSI, 1 vector " "MSI"
like "$(found ok reset "$edu")" "reset of its bus, where it is alone" "a device that only its bus can reset"

# No driver, and a bridge.
echo >/sys/bus/pci/devices/"$nvme"/driver_override
echo "$nvme" >/sys/bus/pci/devices/"$nvme"/driver/unbind
like "$(found blocker driver "$nvme")" "bound to no driver" "no driver is no good either"
port=$(basename "$(dirname "$(readlink -f /sys/bus/pci/devices/"$edu")")")
like "$(found blocker driver "$port")" "bridge" "a bridge cannot be given"

# A PF in use, its VF, and the link.
ip link set "$(netdev "$pf")" up
retry 20 carrier_up "$(netdev "$pf")"
like "$(found warning driver "$pf")" "interface $(netdev "$pf"), which is up" \
	"an interface that the host uses is pointed at"
vfs_create "$pf" 2
vf=$(vfs "$pf" | head -n 1)
vfio_bind "$vf"
is "$(blockers "$vf")" "" "a VF: nothing blocks"
is "$(try "$vf" iommufd 0x40000000)" ok "and the kernel gives it"
like "$(found ok msi "$vf")" "3 MSI-X vectors" "its vectors are counted"
like "$(found warning mac "$vf")" "vf set $vf --mac MAC" "its MAC address is a new one each time"
hospes vf set "$vf" --mac 02:00:00:00:00:01
like "$(found ok mac "$vf")" "02:00:00:00:00:01" "unless its PF has one"
like "$(found ok quirk "$pf")" "its [0-9]+ VFs can be given singly" "SR-IOV of a PF is hidden"
like "$(found ok link "$vf")" "$pf .* is up" "its PF is up"
ip link set "$(netdev "$pf")" down
like "$(found warning link "$vf")" "=> ip link set .* up" "its PF is down: a warning"
like "$(found warning driver "$pf")" "2 virtual functions go away.*hospes vf destroy $pf" \
	"the PF's VFs would go with its driver"

# The list.
list=$(hospes iommu list)
like "$list" "$vf .*isolated +alone in group" "the VF is isolated"
like "$list" "0000:00:1f.2 .*shared .*0000:00:1f.0: functions of one slot" "the chipset's are not"
like "$list" "dmar0 .*48 bits.*4 KiB, 2 MiB, 1 GiB" "the IOMMU and its pages"
ok "the list is JSON, too" sh -c 'hospes iommu list --json | python3 -c "
import json, sys
l = json.load(sys.stdin)
assert l[\"interrupts_remapped\"] and l[\"iommufd\"] and l[\"iommus\"][0][\"address_bits\"] == 48"'

# A group of two, of which the host uses one.
like "$(found ok group "$vf")" "^alone in IOMMU group" "alone in its group"
l0 device_del edu0
retry 20 test ! -e "/sys/bus/pci/devices/$edu"
l0 device_add virtio-rng-pci,id=a,bus=rp4,addr=0.1,disable-legacy=on,multifunction=on
l0 device_add virtio-rng-pci,id=b,bus=rp4,addr=0.0,disable-legacy=on,multifunction=on
one=${edu%.*}.0 two=${edu%.*}.1
retry 20 test -e "/sys/bus/pci/devices/$two/driver"
vfio_bind "$one"
like "$(found blocker group "$one")" "$two is in its group .* bound to virtio-pci.* => hospes vf bind $two" \
	"the other member of the group blocks"
like "$(try "$one" iommufd)" "^bind E(BUSY|PERM)" "the kernel refuses it so"
is "$(try "$one" type1)" "viable EPERM" "with type1 too"
vfio_bind "$two"
is "$(blockers "$one")" "" "both bound: nothing blocks"
like "$(found ok group "$one")" "$two is in its group .*only one VM" "and it is said what that means"
is "$(try "$one" iommufd 0x1000000)" ok "the kernel gives it"

# A device that can be reset by its power state; and one whose driver is another one of VFIO's.
l0 device_del b
retry 20 test ! -e "/sys/bus/pci/devices/$one"
l0 device_add virtio-rng-pci,id=c,bus=rp4,disable-legacy=on,x-pcie-flr-init=off,x-pcie-pm-no-soft-reset=off
retry 20 test -e "/sys/bus/pci/devices/$one/driver"
like "$(found ok reset "$one")" "by power state D3" "power states reset it"
l0 device_del c
retry 20 test ! -e "/sys/bus/pci/devices/$one"
l0 device_add virtio-net-pci,id=d,bus=rp4,disable-legacy=on,romfile=
retry 20 test -e "/sys/bus/pci/devices/$one/driver"
vfio_bind "$one"
echo virtio_vfio_pci >"/sys/bus/pci/devices/$one/driver_override"
echo "$one" >"/sys/bus/pci/devices/$one/driver/unbind"
echo "$one" >/sys/bus/pci/drivers_probe
is "$(blockers "$one")" "" "virtio_vfio_pci is a driver of VFIO too"
like "$(found ok migration "$one")" "virtio_vfio_pci may be able to move its state" "one that may move devices"
like "$(start "$one" --memory 256M)" '^hello from' "run starts a guest with it"

# What is not there.
like "$(hospes device explain 0000:77:00.0 2>&1)" "no such PCI device" "a device that is not there"
not_ok "is a failure" hospes device explain 0000:77:00.0
hospes device explain >/dev/null 2>&1
is $? 2 "no device: usage"
done_testing
