#!/bin/bash
# testhost: --cpus 2 --timeout 600 shared
# PCI as a guest's tools see it: lspci understands every capability, root ports report errors and access
# control as granted, and the kernel has nothing to complain of.
. "$(dirname "$0")/../lib.sh"
plan 11

truncate -s 16M "$TMP/data.img"
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
# shellcheck disable=SC2016 # for the guest
guest_start pci hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M \
	--disk "path=$TMP/root.img" --disk "path=$TMP/data.img" --net tap=tap9,create=on --cmdline \
	'console=ttyS0 root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="lspci -vvv; echo ports $(lspci -d ::0604 | wc -l)"'
guest_wait pci 150
is $? 0 "the guest powers off" || guest_show pci
log=$(guest_log pci | tr -d '\r')
# The block of the first root port alone, and all of them.
ports=$(sed -n 's/^ports \([0-9]*\)$/\1/p' <<<"$log")
ok "there are root ports (${ports:-0})" test "${ports:-0}" -gt 0
is "$(grep -c 'Express (v2) Root Port (Slot+)' <<<"$log")" "$ports" "each is a root port with a slot"
is "$(grep -c 'Capabilities: \[.*\] Advanced Error Reporting' <<<"$log")" "$ports" "each reports errors"
is "$(grep -c 'RootCmd: CERptEn+ NFERptEn+ FERptEn+' <<<"$log")" "$ports" "and the kernel has enabled that"
is "$(grep -c 'UESvrt:.*DLP+.*FCP+.*RxOF+.*MalfTLP+' <<<"$log")" "$ports" "severities are the specified ones"
is "$(grep -c 'Capabilities: \[.*\] Access Control Services' <<<"$log")" "$ports" "each has access control"
is "$(grep -cE 'AER: enabled with IRQ' <<<"$log")" "$ports" "the kernel's AER driver took each"
is "$(grep -cE 'pciehp: Slot #[0-9]+.*Surprise\+' <<<"$log")" "$ports" "and its hot plug driver too"
unlike "$log" '<(access denied|chain looped|unreadable|chain broken)>|!!! |Unknown header type' \
	"lspci has nothing to wonder at"
unlike "$log" 'ACPI (Error|Warning|BIOS Error|Exception)|\[Firmware (Bug|Warn)\]|Call Trace|can.t claim|no compatible bridge window|AER: .*(error|fail)|_OSC.*(fail|disabl)' \
	"the kernel has nothing to complain of"
