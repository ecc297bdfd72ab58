#!/bin/bash
# testhost: --cpus 2 --memory 5G --timeout 900 destructive long
# Debian's kernel starts another by kexec, and one more when it crashes while an NVMe controller writes: each
# finds the controller and what was written: mapped buffer by buffer, and with all memory within its reach, where a
# write of the kernel before may still be on its way. Only with HOSPES_LONG=1.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010) || skip_all "needs an NVMe controller"
vfio_bind "$nvme" || bail "$nvme does not bind to vfio-pci"

# The kernel comes from Debian's disk, its initrd is another one; perl is the only program there that can
# make any system call: kexec_file_load (320) and reboot (169).
cat >"$TMP/script" <<'GUEST'
load() { # FLAGS STAGE [OPTIONS]
	perl -e 'my ($flags, $line) = @ARGV;
		open(my $kernel, "<", glob("/boot/vmlinuz-*")) or die "$!\n";
		open(my $initrd, "<", "/tmp/initrd") or die "$!\n";
		exit if !syscall(320, fileno($kernel), fileno($initrd), length($line) + 1, "$line\0", $flags + 0);
		die "kexec_file_load: $!\n"' "$1" \
		"console=ttyS0 root=/dev/vda ro init=/usr/lib/hospes/init hospes.sh=\"sh /dev/vdb $2\" $3"
}
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
sum=$(dd if=/dev/nvme0n1 bs=1M count=8 iflag=direct 2>/dev/null | md5sum)
head -c 8M /dev/vdd | md5sum | grep -qF "$sum" && echo "$1: whole"
[ "$1" = crash ] || head -c INITRD /dev/vdc >/tmp/initrd
case $1 in
boot)
	dd if=/dev/vdd of=/dev/nvme0n1 bs=1M count=8 oflag=direct 2>/dev/null
	load 0 kexec crashkernel=192M
	sync
	perl -e 'syscall(169, 0xfee1dead, 672274793, 0x45584543, 0)'
	echo "no kexec" ;;
kexec)
	load 2 crash "nr_cpus=1 reset_devices"
	(while :; do dd if=/dev/vdd of=/dev/nvme0n1 bs=64k seek=256 count=128 oflag=direct 2>/dev/null; done) &
	until [ "$(awk '{ print $7 }' /sys/block/nvme0n1/stat)" -gt 30000 ]; do sleep 0.1; done
	echo c >/proc/sysrq-trigger ;;
crash)
	head -c 4 /proc/vmcore | grep -q ELF && echo "crash: memory of the kernel that crashed"
	dd if=/dev/vdd of=/dev/nvme0n1 bs=1M count=8 seek=64 oflag=direct 2>/dev/null
	dd if=/dev/nvme0n1 bs=1M count=8 skip=64 iflag=direct 2>/dev/null | md5sum | grep -qF "$sum" && echo "crash: written" ;;
esac
exit
GUEST
sed -i "s/INITRD/$(stat -c %s "$HOSPES_DEBIAN_INITRD")/" "$TMP/script"
truncate -s 4096 "$TMP/script"
cp "$HOSPES_DEBIAN_INITRD" "$TMP/initrd"
truncate -s %512 "$TMP/initrd"
head -c 8M /dev/urandom >"$TMP/data"

plan 10
for how in '--viommu strict' direct; do
	strategy=${how##* }
	guest_start "$strategy" hospes run --kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD" --cpus 2 \
		--memory 768M --verbose --disk "path=$HOSPES_GUEST_DISK,readonly=on" --disk "path=$TMP/script,readonly=on" \
		--disk "path=$TMP/initrd,readonly=on" --disk "path=$TMP/data,readonly=on" \
		--passthrough "$nvme,strategy=$strategy" ${how%"$strategy"} \
		--cmdline 'console=ttyS0 root=/dev/vda ro init=/usr/lib/hospes/init hospes.sh="sh /dev/vdb boot"'
	guest_wait "$strategy" 400
	is $? 0 "$strategy: three kernels, the last powers off" || guest_show "$strategy" 80
	log=$(guest_log "$strategy" | tr -d '\r')
	like "$log" '^kexec: whole' "$strategy: after kexec the disk holds what was written"
	like "$log" '^crash: whole' "$strategy: after the crash it does"
	like "$log" '^crash: memory of' "$strategy: the crashed kernel's memory is there"
	like "$log" '^crash: written' "$strategy: and the disk takes more"
done
