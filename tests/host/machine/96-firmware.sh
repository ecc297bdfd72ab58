#!/bin/bash
# testhost: outside long
# UEFI: a disk with a partition table, an EFI system partition, systemd-boot and Debian's own kernel boots through
# CLOUDHV.fd without a word of the kernel's on hospes's command line; what edk2's own drivers, which nobody here
# wrote, make of our devices; a passed-through NVMe disk. Only with HOSPES_LONG=1: tools/firmware builds that file.
. "$(dirname "$0")/../lib.sh"
root=$(readlink -f "$(dirname "$0")/../../..")
. "$root/tools/lib/debtree.sh"
debtree_can 2>/dev/null && firmware=$("$root/tools/firmware") && tree=$(debtree_get efi trixie linux-image-cloud-amd64 systemd-boot-efi busybox-static cpio \
	dosfstools fdisk mtools) || skip_all "no Debian trees here"
cp "$firmware" "$TMP/CLOUDHV.fd"

cat >"$TMP/init" <<'GUEST'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
[ -d /sys/firmware/efi ] && echo "GUEST efi=yes"
echo "GUEST cmdline=$(/bin/busybox cat /proc/cmdline)"
echo "GUEST vendor=$(/bin/busybox cat /sys/class/dmi/id/sys_vendor)"
echo "GUEST cpus=$(/bin/busybox nproc)"
for d in /sys/bus/pci/devices/*; do
	echo "GUEST pci $(/bin/busybox basename "$d") $(/bin/busybox cat "$d/vendor" "$d/device" | /bin/busybox tr '\n' ' ')"
done
/bin/busybox dmesg | /bin/busybox grep -E "can't claim|no compatible bridge|ACPI Error|ACPI BIOS" | /bin/busybox sed 's/^/GUEST complaint /'
echo "GUEST end"
case $(/bin/busybox cat /proc/cmdline) in
*again*) /bin/busybox reboot -f ;;
*) /bin/busybox poweroff -f ;;
esac
GUEST
cat >"$TMP/make" <<'TREE'
set -eu
cd /build
mkdir -p rd/bin
cp /bin/busybox rd/bin/
cp init rd/init
chmod 755 rd/init
(cd rd && find . | cpio -o -H newc --quiet) >initrd
kernel=$(ls /boot/vmlinuz-* | tail -n 1)
truncate -s 256M disk
printf 'label: gpt\n,,U\n' | sfdisk -q disk
at="disk@@1M"
mformat -i "$at" -T $((254 * 2048)) -F -v EFI ::
mmd -i "$at" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
mcopy -i "$at" /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$at" "$kernel" ::/linux
mcopy -i "$at" initrd ::/initrd
printf 'timeout 0\ndefault guest.conf\n' >conf
mcopy -i "$at" conf ::/loader/loader.conf
truncate -s 8M words
mformat -i words -v WORDS ::
echo 'these words are on a disk' >words.txt
mcopy -i words words.txt ::/words.txt
printf 'title guest\nlinux /linux\ninitrd /initrd\noptions console=ttyS0 from=disk\n' >conf
mcopy -i "$at" conf ::/loader/entries/guest.conf
TREE
debtree_run "$tree" --bind "$TMP:/build" -- bash /build/make >"$TMP/make.log" 2>&1 ||
	bail "no disk: $(tail -n 5 "$TMP/make.log")"

cat >"$TMP/firmware.sh" <<'L1'
#!/bin/bash
. "$HOSPES_SRC/tests/host/lib.sh"
plan 17
given=$(dirname "$0")
cp "$given/CLOUDHV.fd" "$TMP/"
cp "$given/disk" "$TMP/disk"
efi=(hospes run --firmware "$TMP/CLOUDHV.fd")
ended() { # NAME: its exit status, in at most 60 s
	timeout 60 tail --pid="${guest_pid[$1]}" -f /dev/null && wait "${guest_pid[$1]}"
}

# Above the hole below 4 GiB are RAM, then the BARs, then room for memory that may come.
guest_start disk "${efi[@]}" --memory 3328M,max=4352M --cpus 2 --disk "path=$TMP/disk"
ok "systemd-boot's kernel runs" guest_wait_for disk 'GUEST end' 400 || guest_show disk
log=$(guest_log disk | tr -d '\r')
like "$log" 'GUEST efi=yes' "under UEFI"
like "$log" 'GUEST cmdline=.*from=disk' "with the options that are on the disk"
like "$log" 'GUEST cpus=2' "with both CPUs"
like "$log" 'GUEST vendor=hospes' "it sees our SMBIOS tables"
unlike "$log" 'GUEST complaint' "and the kernel takes the BARs as the firmware left them" || diag "$(grep GUEST <<<"$log")"
ended disk
is $? 0 "it powers off"

# What edk2's own drivers make of our devices.
ip tuntap add tap9 mode tap && ip addr add 10.9.0.1/24 dev tap9 && ip link set tap9 up
guest_start shell "${efi[@]}" --memory 256M --disk "path=$given/words,readonly=on" --net tap=tap9
ok "a disk without a boot loader: there is the firmware's shell" guest_wait_for shell 'Shell>' 300 || guest_show shell
guest_send shell $'type fs0:\\words.txt\r'
ok "its virtio-blk reads a file" guest_wait_for shell 'these words are on a disk' 60
guest_send shell $'ifconfig -s eth0 static 10.9.0.2 255.255.255.0 10.9.0.1\r'
guest_send shell $'ping -n 3 10.9.0.1\r'
ok "its virtio-net, which needs its virtio-rng, has answers" guest_wait_for shell 'Reply from 10\.9\.0\.1|3 packets transmitted, 3 received' 60 || guest_show shell
guest_send shell $'reset\r'
ok "its reset is a reset" guest_times shell 'UEFI Interactive Shell' 2 300 || guest_show shell
# The first key ends a countdown, if that is still there.
guest_send shell $'\rreset -s\r'
ended shell
is $? 0 "its power off is one"

nvme=$(device 1b36:0010 0) && [ -b /dev/nvme0n1 ] || bail "no NVMe controller"
dd if="$given/disk" of="/dev/$(basename "$(find "/sys/bus/pci/devices/$nvme/nvme/" -name 'nvme*n1' | head -n 1)")" bs=4M \
	conv=fsync status=none && vfio_bind "$nvme" || bail "no NVMe disk"
guest_start nvme "${efi[@]}" --memory 512M --passthrough "$nvme"
ok "it boots from a passed-through NVMe disk" guest_wait_for nvme 'GUEST end' 400 || guest_show nvme
like "$(guest_log nvme)" 'GUEST pci .* 0x1b36 0x0010' "and that is all the kernel has"
guest_kill nvme
vfio_unbind "$nvme"

hospes run --firmware "$given/disk" --memory 512M >"$TMP/log" 2>&1
like "$(cat "$TMP/log")" "firmware '.*': it looks like a boot sector or disk image; give a CLOUDHV.fd" "a disk is no firmware"
"${efi[@]}" --kernel "$HOSPES_GUEST_BZIMAGE" >"$TMP/log" 2>&1
like "$(cat "$TMP/log")" "firmware .* and kernel.path: .* leave one out" "a kernel beside it is refused"
"${efi[@]}" --memory 64M --console virtio >"$TMP/log" 2>&1 &
guest_pid[silent]=$!
ok "a console where firmware writes nothing is explained" wait_for "$TMP/log" 'a serial one: --console serial' 60 $!
kill -9 "${guest_pid[silent]}"
unset 'guest_pid[silent]'
L1
chmod +x "$TMP/firmware.sh"
"$testhost" run --cpus 2 --memory 8G --timeout 900 "$TMP/firmware.sh"
