#!/bin/bash
# testhost: --memory 5G --timeout 400 destructive
# Two VFs of one card in two guests at the same time: ping and iperf3 both ways, each guest with the PF
# and with the other; and one of them again after its reboot.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) && nvme=$(device 1b36:0010) || skip_all "needs an igb and an NVMe controller"
plan 14
ok "two VFs appear" vfs_create "$pf" 2
mapfile -t vf < <(vfs "$pf")
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
for d in "${vf[@]}" "$nvme"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done
# A mark on the disk tells a guest that it has been rebooted.
mark='dd if=/dev/nvme0n1 bs=6 count=1 2>/dev/null'

# start NAME ADDRESS COMMANDS ARG…: a guest on the disk, its eth0 the function.
start() {
	local name=$1 address=$2 commands=$3
	shift 3
	guest_start "$name" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 384M --verbose \
		--disk "path=$HOSPES_GUEST_DISK,readonly=on" "$@" --cmdline "console=ttyS0 quiet root=/dev/vda ro \
init=/usr/lib/hospes/init hospes.ip=$address/24 hospes.sh=\"$commands\""
}
once() { iperf3 -J -c 10.9.0.2 "$@" | jq -e '.end.sum_received.bytes > 1000000'; }
# The server takes one test at a time, and is still busy with the last one for a moment.
received() { retry 45 once "$@"; }

start one 10.9.0.2 'iperf3 -s' --cpus 2 --passthrough "${vf[0]}"
ok "a guest with the first VF listens" guest_wait_for one 'Server listening' 90 || guest_show one
ok "the PF reaches it" retry 30 ping -q -c 3 -i 0.2 -W 2 10.9.0.2
ok "with whole frames too" ping -q -c 3 -i 0.2 -w 20 -M 'do' -s 1472 10.9.0.2
ok "iperf3 from the PF to the guest" received -t 2
ok "iperf3 from the guest to the PF" received -t 2 -R

iperf3 -s >"$TMP/iperf.log" 2>&1 &
server=$!
reach='i=0; until ping -c 1 -W 1 $to >/dev/null || [ $i = 20 ]; do i=$((i + 1)); done;
	ping -q -c 3 -i 0.2 $to | sed -n s/transmitted/to\ $to\ \&/p;
	for way in --no-delay -R; do iperf3 -f m -t 2 -c $to $way | sed -n s/receiver/$way\ $to/p; done'
start two 10.9.0.3 "$mark | grep -q marked || { echo marking; printf marked | dd of=/dev/nvme0n1 conv=fsync; \
busybox reboot -f; }; for to in 10.9.0.1 10.9.0.2; do ${reach//$'\n\t'/ }; done" \
	--passthrough "${vf[1]}" --passthrough "$nvme"
guest_wait two 300
is $? 0 "a guest with the second VF powers off" || guest_show two 60
kill "$server"
log=$(guest_log two | tr -d '\r')
like "$log" '^marking' "having been rebooted"
for to in 10.9.0.1 10.9.0.2; do
	peer=${to/10.9.0.1/the PF} peer=${peer/10.9.0.2/the other guest}
	like "$log" "^3 packets to $to .* 0% packet loss" "rebooted, it reaches $peer"
	like "$log" "[1-9][0-9.]* [KMG]Bytes .* --no-delay $to" "iperf3 to $peer"
	like "$log" "[1-9][0-9.]* [KMG]Bytes .* -R $to" "iperf3 from $peer"
done
