#!/bin/bash
# testhost: destructive --timeout 300
# The README's "A real device in the guest", as it is written there, does what it says.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) || skip_all "no igb"
[ "$pf" = 0000:01:00.0 ] || skip_all "the igb is not where the README has it"
plan 15

commands() { sed -n '/^## A real device/,/^## Building/s/^    //p' "$HOSPES_SRC/README.md" | sed 's/ *#.*//'; }
is "$(commands | grep -c .)" 9 "there are nine commands"
like "$(commands | head -n 1)" '^tools/testhost shell$' "the first is how one gets here"

try() { # WORDS
	local line
	line=$(commands | grep "^$1")
	diag "$line"
	eval "$line"
}
ip link set "$(netdev "$pf")" down
ok "the card's interface is set up" try "ip link"
ok "two virtual functions" try "hospes vf create"
is "$(cat /sys/bus/pci/devices/"$pf"/sriov_numvfs)" 2 "are there"
ok "one is bound" try "hospes vf bind"
ok "nothing is in the way" try "hospes device explain"
for n in 1 2 3; do
	line=$(commands | grep '^hospes run' | sed -n "${n}p")
	diag "$line"
	eval "guest_start vf $line --cmdline 'console=ttyS0 quiet hospes.sh=\"ls /sys/bus/pci/drivers/igbvf\"'"
	guest_wait vf 90
	is $? 0 "guest $n ends"
	like "$(guest_log vf)" '0000:01:00\.0' "its driver has the function" || guest_show vf
done
strategies=$(try "hospes iommu list")
like "$strategies" '^ *cached ' "the strategies are listed"
like "$strategies" 'quota=' "with their parameters"
