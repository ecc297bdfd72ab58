#!/bin/bash
# testhost: --memory 4G --timeout 120 destructive
# A device that a guest had, after its machine has ended: driven from the host, its DMA gets nowhere.
. "$(dirname "$0")/lib.sh"
edu=$(device 1234:11e8) || skip_all "no edu device"
plan 6
dma=$HOSPES_BUILD/tests/host/safety/dma
attackers
with_vfio "$edu"

start guest --memory 96M --passthrough "$edu"
own=$(say guest 'canary its own' '^canary at' | cut -d' ' -f3)
say guest "write $own" '^wrote' >/dev/null
like "$(say guest look '^page ')" '^page changed' "while a guest has it, it writes where its driver asks ($own)"
guest_send guest end
guest_wait guest 60
is $? 0 "the guest powers off" || guest_show guest

guest_start host "$dma" "$edu"
ok "the host drives the device" guest_wait_for host '^dma: ready' 10 || guest_show host
at=$(say host 'canary after release' '^canary at' | cut -d' ' -f3)
dmesg -C
like "$(say host "write $at" '^wrote')" "^wrote 0x[1-9a-f]" "and makes it write to $at"
ok "the host's log has the fault" \
	retry 6 sh -c "dmesg | grep -q 'fault addr $(printf '0x%x' $((at & ~4095))) '"
is "$(say host look '^page ')" "page same" "the page is as it was"
guest_send host end
guest_wait host 10
