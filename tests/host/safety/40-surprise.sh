#!/bin/bash
# testhost: --memory 5G --timeout 600 destructive
# The host pulls the ground from under a running guest: the VF's PF goes down, VFs are removed, the PF's
# driver is unbound, the device reports errors, the PF is pulled out. An event and a guest that runs, or
# a clean end; never a hang, each step has a bound.
. "$(dirname "$0")/lib.sh"
pf=$(device 8086:10c9) || skip_all "needs an igb"

# Rounds while the network answers; when it does not answer for a while, its driver
# begins again, as an administrator would make it; without a card a line says so; ends when told.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
(read -r line; touch /tmp/end) </dev/ttyS0 &
up() {
	for d in /sys/class/net/*; do
		[ -e "$d/device/vendor" ] || continue
		net=${d##*/}
		ip link set "$net" up
		ip addr add 10.9.0.2/24 dev "$net" 2>/dev/null
	done
}
n=0 tick=0 silent=0
while [ ! -e /tmp/end ]; do
	up
	tick=$((tick + 1))
	if ping -c 1 -W 1 10.9.0.1 >/dev/null 2>&1; then
		n=$((n + 1)) silent=0
		echo "round $n"
	elif [ "$((silent += 1))" = 5 ] && [ -n "$net" ] && ip link set "$net" down 2>/dev/null; then
		echo "began again"
		silent=0
	fi
	[ -n "$(ls /sys/class/net | grep -v -e lo -e sit)" ] || echo "nic lost"
	echo "tick $tick"
	usleep 100000
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
start() {
	local name=$1
	shift
	guest_start "$name" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M \
		--verbose --cmdline 'console=ttyS0 quiet' "$@"
}
vf_up() {
	vfs_create "$pf" 1 || bail "no VF appears"
	vf=$(vfs "$pf")
	ip addr replace 10.9.0.1/24 dev "$(netdev "$pf")"
	with_vfio "$vf"
}
# lives NAME: it goes on, by two more ticks than it has.
lives() { guest_wait_for "$1" "^tick $(($(grep -ac '^tick' "$TMP/$1.log") + 2))\b" 60; }
ends() {
	guest_send "$1" end
	guest_wait "$1" 60
	is $? 0 "$2: the guest powers off when told" || guest_show "$1" 60
}
bounded() {
	local name=$1
	shift
	timeout -s KILL 60 sh -c "$*"
	is $? 0 "$name ends"
}

vf_up
start down --name nightshift --passthrough "$vf"
ok "a guest has a VF" guest_wait_for down '^round 3' 90 || guest_show down
for verb in "destroy $pf" "bind $vf --driver igbvf" "unbind $vf"; do
	like "$(hospes vf $verb 2>&1)" "in use by VM 'nightshift' \(hospes, pid ${guest_pid[down]}\)" \
		"hospes vf ${verb%% *} is refused, and names the machine"
done
like "$(hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --memory 128M --passthrough "$vf" 2>&1)" \
	"in use.*VM 'nightshift'" "so is another machine with the VF"
is "$(hospes vf list --json | jq -r '.[].vfs[] | .user // empty')" "VM 'nightshift' (hospes, pid ${guest_pid[down]})" \
	"hospes vf list names it too"
bounded "setting the PF down" "ip link set $(netdev "$pf") down"
ok "PF down: the guest lives" lives down
ip link set "$(netdev "$pf")" up
retry 20 carrier_up "$(netdev "$pf")"
rounds=$(grep -ac '^round' "$TMP/down.log")
# igb takes the VF's settings away as it goes down: the guest's driver has to begin again.
ok "PF up again: the VF works again" guest_wait_for down "^round $((rounds + 1))\b" 90 || guest_show down
diag "its driver began again $(grep -ac '^began again' "$TMP/down.log") times"

bounded "removing the VFs (sriov_numvfs=0)" "echo 0 >/sys/bus/pci/devices/$pf/sriov_numvfs"
ok "VFs removed: hospes says that it released the device" \
	guest_wait_for down 'taken from the guest and released' 60
ok "VFs removed: the guest lives" lives down
ends down "VFs removed"

vf_up
start unbound --passthrough "$vf"
ok "a guest has a VF again" guest_wait_for unbound '^round 2' 90 || guest_show unbound
bounded "unbinding the PF's driver" "echo $pf >/sys/bus/pci/devices/$pf/driver/unbind"
ok "the VF is there, or was released" \
	sh -c "[ -e /sys/bus/pci/devices/$vf ] || grep -q 'taken from the guest and released' $TMP/unbound.log"
ok "PF unbound: the guest lives" lives unbound
ends unbound "PF unbound"

# Errors that the device reports: the whole NIC is the guest's now.
if [ "${HOSPES_TESTHOST:-}" = l1 ]; then
	with_vfio "$pf"
	start error --passthrough "$pf,on_error=log"
	ok "a guest has the NIC" guest_wait_for error '^tick 3' 90 || guest_show error
	l0 pcie_aer_inject_error rp1 COMP_ABORT # QEMU's igb itself sends none
	ok "error: hospes says so" guest_wait_for error 'reported an uncorrectable error' 30 ||
		diag "$(dmesg | tail -n 20)"
	ok "error: the guest lives" lives error
	ends error "error"
	start pulled --passthrough "$pf"
	ok "the next has the NIC" guest_wait_for pulled '^tick 3' 90
	l0 device_del igb0
	ok "pulled out: it is taken from the guest" guest_wait_for pulled 'taken from the guest and released' 60
	ok "pulled out: it is gone from the host" retry 30 test ! -e "/sys/bus/pci/devices/$pf"
	ok "pulled out: the guest lives" lives pulled
	ends pulled "pulled out"
fi
host_is_well
done_testing
