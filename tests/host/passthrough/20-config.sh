#!/bin/bash
# testhost: --memory 5G --timeout 600 destructive
# What a Linux guest sees and may do of an NVMe controller, a VF and a device that only its bus can reset
# (edu): capabilities as the table in devices/passthrough/caps.c says, fio's verification, function
# resets, a reboot. Writes to every config byte leave the host's device as it was.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) && pf=$(device 8086:10c9) && edu=$(device 1234:11e8) ||
	skip_all "needs an NVMe controller, an igb and an edu"
plan 19

ok "a VF appears" vfs_create "$pf" 1
vf=$(vfs "$pf")
for d in "$nvme" "$vf" "$edu"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done
# the header of the real devices, but for status
real() { for d in "$nvme" "$vf" "$edu"; do lspci -xxx -s "$d" | grep -E '^[123]0:'; done; }
before=$(real)

cat >"$TMP/guest.sh" <<'GUEST'
nvme=$(lspci -D -d 1b36:0010 | cut -d' ' -f1)
vf=$(lspci -D -d 8086:10ca | cut -d' ' -f1)
edu=$(lspci -D -d 1234:11e8 | cut -d' ' -f1)
if dd if=/dev/nvme0n1 bs=4k count=1 iflag=direct 2>/dev/null | grep -q 'second boot'; then
	echo second boot
	fio --name=again --filename=/dev/nvme0n1 --offset=64M --size=4M --direct=1 --rw=write --bs=64k \
		--verify=crc32c --do_verify=1 >/tmp/fio 2>&1 && echo again verified || cat /tmp/fio
	poweroff -f
fi
for d in $nvme $vf $edu; do
	echo "config $d $(lspci -n -s $d | cut -d' ' -f3)"
	lspci -xxxx -s $d | grep -E '^[0-9a-f]+: '
	echo "config end"
done
lspci -vv -s $nvme
fio --name=v --filename=/dev/nvme0n1 --size=16M --direct=1 --rw=randwrite --bs=4k --iodepth=16 \
	--ioengine=libaio --verify=crc32c --do_verify=1 >/tmp/fio 2>&1 && echo fio verified || cat /tmp/fio
grep -E 'nvme' /proc/interrupts
# function resets under no driver, then the driver again
echo $nvme >/sys/bus/pci/drivers/nvme/unbind
cat /sys/bus/pci/devices/$nvme/reset_method
echo 1 >/sys/bus/pci/devices/$nvme/reset && echo nvme reset
echo 1 >/sys/bus/pci/devices/$edu/reset && echo edu reset
# every byte of config space: all ones, then zeroes
python3 - $vf $edu <<'PYTHON'
import os, sys
for d in sys.argv[1:]:
    try: open(f"/sys/bus/pci/devices/{d}/driver/unbind", "w").write(d)
    except OSError: pass
    fd = os.open(f"/sys/bus/pci/devices/{d}/config", os.O_RDWR)
    for value in (0xffffffff, 0):
        for at in range(0, os.fstat(fd).st_size, 4):
            os.pwrite(fd, value.to_bytes(4, "little"), at)
print("all written")
PYTHON
echo $nvme >/sys/bus/pci/drivers/nvme/bind
n=0
until [ -b /dev/nvme0n1 ] || [ $n = 50 ]; do n=$((n + 1)); sleep 0.2; done
fio --name=w --filename=/dev/nvme0n1 --offset=32M --size=4M --direct=1 --rw=randwrite --bs=4k \
	--verify=crc32c --do_verify=1 >/tmp/fio 2>&1 && echo after reset verified || cat /tmp/fio
echo 'second boot' >/tmp/mark
dd if=/tmp/mark of=/dev/nvme0n1 bs=4k conv=sync oflag=direct 2>/dev/null
reboot -f
GUEST
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
debugfs -w -R "write $TMP/guest.sh guest.sh" "$TMP/root.img" >/dev/null 2>&1
dmesg -C
guest_start vm hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M \
	--disk "path=$TMP/root.img" --passthrough "$nvme" --passthrough "$vf" --passthrough "$edu" --cmdline \
	'console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="sh /guest.sh"'
guest_wait vm 420
is $? 0 "the guest powers off" || guest_show vm 60
log=$(guest_log vm | tr -d '\r')

# The lists that a guest walks, from its own lspci -xxxx: only what the table allows, each chain ends.
walk=$(python3 - "$TMP/vm.log" <<'PYTHON'
import re, sys
STANDARD = {0x01, 0x03, 0x05, 0x09, 0x10, 0x11, 0x12, 0x13}
EXTENDED = {0x0000, 0x0001, 0x0003, 0x000b, 0x0023}
config, name = None, None
for line in open(sys.argv[1], errors="replace"):
    line = line.strip("\r\n")
    if m := re.match(r"config (\S+) (\S+)$", line):
        name, config = m[2], bytearray(4096)
    elif line == "config end" and config:
        word = lambda at: int.from_bytes(config[at:at + 4], "little")
        at, std, ext = config[0x34], [], []
        while at and len(std) < 48:
            std.append(config[at])
            at = config[at + 1]
        at = 0x100 if word(0x100) else 0
        while at and len(ext) < 64:
            ext.append(word(at) & 0xffff)
            at = word(at) >> 20
        bad = [i for i in std if i not in STANDARD] + [i for i in ext if i not in EXTENDED]
        print(name, "standard", *(f"{i:02x}" for i in std), "extended", *(f"{i:04x}" for i in ext),
              "BAD" if bad else "good")
        config = None
    elif config is not None and (m := re.match(r"([0-9a-f]+): ((?:[0-9a-f]{2} ?)+)$", line)):
        row = bytes.fromhex(m[2])
        config[int(m[1], 16):int(m[1], 16) + len(row)] = row
PYTHON
)
diag "$walk"
is "$(grep -c ' good$' <<<"$walk")" 3 "three devices show only what the table allows"
like "$walk" '^1b36:0010 standard .*11.*10|^1b36:0010 standard .*10.*11' "the NVMe controller has PCI Express and MSI-X"
like "$walk" '^8086:10ca .*11' "the VF has MSI-X"
like "$log" '^fio verified' "fio finds what it wrote"
like "$log" 'MSI-?X.*nvme0q1' "by MSI-X"
like "$log" '^nvme reset' "the guest resets the controller"
like "$log" '^edu reset' "and a device that has only its bus to reset it"
like "$log" '^all written' "it writes every config byte of two devices"
like "$log" '^after reset verified' "after which fio verifies again"
like "$log" '^second boot' "what it wrote is there after a reboot"
like "$log" '^again verified' "and the device works again"
like "$log" 'FLReset\+' "function level reset is offered"
unlike "$log" 'I/O tag|timeout, completion|Call Trace|can.t claim|<chain' "the guest has nothing to complain of"
is "$(real)" "$before" "the host's devices have the registers they had"
unlike "$(dmesg)" 'DMAR.*fault|BUG:|Call Trace|vfio.*(fail|error)' "the host has nothing to complain of"
echo "$nvme" >/sys/bus/pci/drivers/vfio-pci/unbind
echo nvme >"/sys/bus/pci/devices/$nvme/driver_override"
ok "the host's driver takes the controller again" sh -c "echo $nvme >/sys/bus/pci/drivers_probe"
ok "and its disk holds the mark" retry 20 sh -c "dd if=/dev/nvme0n1 bs=4k count=1 2>/dev/null | grep -q 'second boot'"
