#!/bin/bash
# testhost: --cpus 2 --timeout 900
# The network is a network: ping of every size, iperf3 both ways over a tap, several queues, vhost-net,
# passt without root.
. "$(dirname "$0")/../lib.sh"

cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
guest=(--kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --disk "path=$TMP/root.img")
line='console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init'

# up NAME NETOPTIONS…: a guest at 10.9.0.2 that serves iperf3, the host at 10.9.0.1
up() {
	local name=$1 options=$2
	shift 2
	guest_start "$name" hospes run "${guest[@]}" --net "tap=tap9,create=on,$options" "$@" --cmdline \
		"$line hospes.ip=10.9.0.2/24 hospes.sh=\"iperf3 -s\""
	retry 30 ip link show tap9 >/dev/null 2>&1 || { guest_show "$name"; return 1; }
	ip addr add 10.9.0.1/24 dev tap9
	ip link set tap9 up
	guest_wait_for "$name" 'Server listening' 90 || { guest_show "$name"; return 1; }
}
down() {
	guest_kill "$1"
	retry 10 gone
}
gone() { ! ip link show tap9 >/dev/null 2>&1; }
once() { iperf3 -J -c 10.9.0.2 "$@" | jq -e '(.end.sum_received.bytes // .end.sum.bytes) > 300000'; }
# The server takes one test at a time, and is still busy with the last one for a moment.
received() { retry 45 once "$@"; }

seconds=$(times 1 3)
for shape in plain 'queues=2' 'vhost=on' 'offload=off'; do
	options=${shape/plain/link=on}
	up "$shape" "$options" --cpus 2
	is $? 0 "$shape: the guest is up"
	# The kernel asks for its address three times in three seconds, and a busy host has stood still for longer.
	ok "$shape: it answers" retry 20 ping -q -c 1 -W 5 10.9.0.2
	for size in 16 56 1472 1473 9000 65507; do
		ok "$shape: ping with $size bytes" ping -q -c 3 -i 0.2 -w 30 -s "$size" 10.9.0.2
	done
	ok "$shape: iperf3 to the guest" received -t "$seconds"
	ok "$shape: iperf3 from the guest" received -t "$seconds" -R
	ok "$shape: iperf3 both ways, two streams" received -t "$seconds" -P 2 --bidir
	ok "$shape: datagrams" received -t "$seconds" -u -b 20M
	if [[ $shape =~ plain|vhost ]]; then
		ip link del tap9
		ok "$shape: a tap that is deleted is noticed" guest_wait_for "$shape" 'network is gone: .*link is down' 30
	fi
	down "$shape"
done

# Both ends have the MTU that was asked for, or the log says that they do not.
up jumbo mtu=9000
is "$(cat /sys/class/net/tap9/mtu)" 9000 "a tap that hospes makes has the guest's mtu"
ok "ping with 8972 bytes in one packet" ping -q -c 1 -w 30 -M "do" -s 8972 10.9.0.2
down jumbo
ip tuntap add tap9 mode tap
guest_start jumbo hospes run "${guest[@]}" --net tap=tap9,mtu=9000 --cmdline "$line"
ok "a tap with another mtu is said" guest_wait_for jumbo "mtu 9000.*'tap9' has 1500.*ip link set tap9 mtu 9000" 30
guest_kill jumbo
ip link del tap9

# A macvtap, which comes as an fd, goes like a tap.
if [ "$(times 0 1)" = 1 ]; then
	ip link add v0 type veth peer name v1
	ip link set v0 up
	ip link add link v0 name mvt0 type macvtap mode bridge
	guest_start macvtap hospes run "${guest[@]}" --net "fd=9,mac=$(cat /sys/class/net/mvt0/address)" --cmdline \
		"$line hospes.sh=\"echo up; sleep 1000\"" 9<>"/dev/tap$(cat /sys/class/net/mvt0/ifindex)"
	ok "macvtap: the guest is up" guest_wait_for macvtap '^up' 60 || guest_show macvtap
	ip link del mvt0
	ok "macvtap: it is deleted, the log says so" guest_wait_for macvtap 'network is gone: .*link is down' 30
	guest_kill macvtap
	ip link del v0
fi

# Without root: passt's socket. The guest reaches the host's address through it.
passt --foreground --socket "$TMP/passt.sock" --runas 0 --mtu 1500 -a 10.8.0.2 -n 24 -g 10.8.0.1 --map-host-loopback 10.8.0.1 \
	>"$TMP/passt.log" 2>&1 &
passt=$!
# Bound first, listening later: ss -l shows both.
listening() { ss -xlH | grep LISTEN | grep -qF "$TMP/passt.sock"; }
ok "passt listens" retry 20 listening
iperf3 -s -1 -p 5999 >"$TMP/iperf.log" 2>&1 &
guest_start passt hospes run "${guest[@]}" --net "socket=$TMP/passt.sock" --cmdline \
	"$line hospes.ip=10.8.0.2/24,10.8.0.1 hospes.sh=\"busybox udhcpc -i eth0 -n -q -s /bin/true; \
iperf3 -c 10.8.0.1 -p 5999 -t 2; echo iperf3 \$?; sleep 1000\""
ok "passt: an address by DHCP" guest_wait_for passt 'lease of [0-9.]+ obtained' 120 || guest_show passt
ok "passt: iperf3 to the host" guest_wait_for passt '^iperf3 0' 60 || { guest_show passt; diag "$(cat "$TMP/passt.log")"; }
kill "$passt"
ok "passt ended: the log says so" guest_wait_for passt 'network is gone' 30 || guest_show passt
done_testing
