#!/bin/bash
# testhost: outside long
# What people start as a kernel besides Linux and its initrd: memtest86+, and Debian's installer, on the serial
# line. Only with HOSPES_LONG=1: both are packages of Debian (150 MB) that nothing else needs.
. "$(dirname "$0")/../lib.sh"
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/../../../tools/lib/debtree.sh"
debtree_can 2>/dev/null && tree=$(debtree_get images trixie memtest86+ debian-installer-13-netboot-amd64) ||
	skip_all "no Debian trees here"
cp "$tree/boot/memtest86+x64.bin" "$TMP/memtest"
cp "$tree/usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/"{linux,initrd.gz} "$TMP/"

cat >"$TMP/images.sh" <<'L1'
#!/bin/bash
. "$HOSPES_SRC/tests/host/lib.sh"
plan 2
given=$(dirname "$0")
guest_start memtest hospes run --kernel "$given/memtest" --memory 64M --cmdline 'console=ttyS0,115200'
ok "memtest86+ has its screen there" guest_wait_for memtest 'Memtest86\+ v' 120 || guest_show memtest
guest_kill memtest
guest_start installer hospes run --kernel "$given/linux" --initrd "$given/initrd.gz" --memory 1G \
	--cmdline 'console=ttyS0 DEBIAN_FRONTEND=text'
ok "Debian's installer asks" guest_wait_for installer 'Choose language|Select a language' 400 || guest_show installer
L1
chmod +x "$TMP/images.sh"
"$testhost" run --cpus 2 --timeout 900 "$TMP/images.sh"
