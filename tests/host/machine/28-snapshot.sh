#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 1500 shared
# A machine that works is snapshotted, ended, and made again from the snapshot, which is snapshotted in turn: what its
# guest has in memory and on its disk is right, what was running goes on, no clock goes back or jumps; and what is no
# snapshot, or no longer as it was, is refused. HOSPES_LONG=1: a hundred times.
. "$(dirname "$0")/../lib.sh"
unset XDG_RUNTIME_DIR
rounds=$(times 3 100)
plan $((22 + 7 * rounds))

truncate -s 64M "$TMP/disk"
ip tuntap add tap9 mode tap vnet_hdr && ip addr add 10.9.0.1/24 dev tap9 && ip link set tap9 up
# It fills memory with a pattern and looks at it again and again, reads and writes its disk, and says what time it is by
# two clocks. What it is sent, it does.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
mkdir /big
mount -t tmpfs -o size=100M none /big
dd if=/dev/urandom of=/big/a bs=1M count=16 2>/dev/null
sum=$(md5sum </big/a)
dd if=/big/a of=/dev/vda bs=1M oflag=direct 2>/dev/null
while read -r line; do eval "$line"; done </dev/ttyS0 &
(while :; do # memory and disk, together
	[ "$(md5sum </big/a)" = "$sum" ] || echo "MEMORY IS WRONG"
	[ "$(dd if=/dev/vda bs=1M count=16 iflag=direct 2>/dev/null | md5sum)" = "$sum" ] || echo "DISK IS WRONG"
	n=$((n + 1))
	echo "checked $n"
	usleep 100000
done) &
(while :; do # a second one, so that both CPUs work
	dd if=/dev/vda of=/dev/null bs=4k skip=12000 count=1000 iflag=direct 2>/dev/null || echo "DISK FAILS"
	echo x >/big/b
done) &
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
(sleep 3; while ping -c 1 -W 30 10.9.0.1 >/dev/null; do usleep 100000; done; echo "NETWORK FAILS") &
(while :; do # a CPU that comes
	[ ! -e /sys/devices/system/cpu/cpu1/online ] || echo 1 2>/dev/null >/sys/devices/system/cpu/cpu1/online
	usleep 100000
done) &
was=0
while :; do
	now=$(cut -d' ' -f1 /proc/uptime | tr -d .)
	[ "$now" -ge "$was" ] || echo "CLOCK WENT BACK from $was to $now"
	[ "$((now - was))" -lt 3000 ] || [ "$was" = 0 ] || echo "CLOCK JUMPED from $was to $now"
	was=$now
	usleep 50000
done
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"

ctl() { timeout 100 hospes ctl snap "$@"; }
ended() { timeout 60 tail --pid="${guest_pid[$1]}" -f /dev/null; wait "${guest_pid[$1]}"; }

guest_start vm0 hospes run --name snap --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --cpus 1,max=2 --memory 256M \
	--balloon --disk "path=$TMP/disk" --net tap=tap9,vhost=on --console serial --console "virtio,path=$TMP/hvc" \
	--cmdline 'console=ttyS0 quiet'
ok "a guest works" guest_wait_for vm0 '^checked 3' 300 || guest_show vm0
ctl set cpus=2
guest_send vm0 'while [ "$(nproc)" != 2 ]; do usleep 100000; done; echo "has $(nproc) CPUs"'
ok "with a CPU that has come" guest_wait_for vm0 '^has 2 CPUs' 60 || guest_show vm0
ok "a snapshot of a machine that goes on" ctl snapshot "$TMP/first" || bail "$(guest_log vm0 | tail -n 3)"
lines=$(grep -ac '^checked' "$TMP/vm0.log")
ok "it does go on" guest_times vm0 '^checked' $((lines + 3)) 240 || guest_show vm0
is "$(ls "$TMP/first" | tr '\n' ' ')" "checksums config.json memory state " "a document, the state, memory, checksums"
is "$(stat -c %a "$TMP/first" "$TMP/first/memory" | tr '\n' ' ')" "700 600 " "which are its owner's alone"
is "$(stat -c %s "$TMP/first/memory")" $((256 << 20)) "memory is all of it"
like "$(hospes snapshot verify "$TMP/first" 2>&1)" 'as it was written' "its checksums are right"
like "$(ctl snapshot "$TMP/first" 2>&1)" 'is there already' "a second one does not replace it"
not_ok "nothing else is left" test -e "$TMP/first.partial"

from=$TMP/last
ok "and one of a machine that ends" ctl snapshot "$from" stop
ended vm0
unlike "$(guest_log vm0)" 'WRONG|FAILS|BACK|JUMPED' "nothing was wrong until then"
for ((i = 1; i <= rounds; i++)); do
	guest_start "vm$i" hospes run --restore "$from"
	lines=$(grep -ac '^checked' "$TMP/vm$i.log")
	ok "$i: it goes on" guest_times "vm$i" '^checked' $((lines + 4)) 240 || { guest_show "vm$i"; guest_where "vm$i"; bail "it does not"; }
	guest_send "vm$i" 'echo "has $(nproc) CPUs, is copy $(dmesg | grep -c "virtual machine fork")"'
	ok "$i: its console too, and it knows that it is a copy" guest_wait_for "vm$i" "^has 2 CPUs, is copy $i" 120 || guest_show "vm$i"
	is "$(ctl status | jq -r '.state + " " + (.devices | length | tostring)')" "running 6" "$i: with its devices"
	ctl set balloon=32M
	ok "$i: its balloon" retry 120 sh -c "timeout 20 hospes ctl snap status | jq -e '.devices[] | select(.actual_bytes == 33554432)' >/dev/null"
	ctl set balloon=0
	ok "$i: it is snapshotted in turn" ctl snapshot "$TMP/next" stop
	ended "vm$i"
	unlike "$(guest_log "vm$i")" 'WRONG|FAILS|BACK|JUMPED' "$i: nothing was wrong" || guest_log "vm$i" | grep -aE 'WRONG|FAILS|BACK|JUMPED' | head -5
	rm -rf "$from"
	ok "$i: the new one is whole" mv "$TMP/next" "$from"
done

# The first one, of which the disk was not kept, with another name; and with the time that passed.
guest_start again hospes run --restore "$TMP/first,clock=real" --name other --disk "path=$TMP/disk" --verify
ok "a snapshot is used again, under another name" guest_wait_for again '^checked' 240 || guest_show again
like "$(timeout 20 hospes list)" '^other +running' "by which it is known"
ok "with the time that has passed" guest_wait_for again 'CLOCK JUMPED' 240 || guest_show again
guest_kill again

refused() { # WHAT REGEX OPTION…: one line, status 1 or 2
	local what=$1 want=$2 out
	shift 2
	out=$(timeout 60 hospes run "$@" 2>&1 </dev/null)
	like "$out" "$want" "$what" || diag "$out"
}
refused "no snapshot is refused" "'$TMP/none': No such file" --restore "$TMP/none"
refused "another device is" "disks: the snapshot has 1 of them" --restore "$from" --disk "path=$TMP/disk" --disk "path=$TMP/d2"
refused "another amount of memory is" 'memory: the file has 268435456 bytes, and the machine 134217728' --restore "$from" --memory 128M
cp -r --sparse=always "$from" "$TMP/bad"
printf 'x' | dd of="$TMP/bad/memory" bs=1 seek=20000000 conv=notrunc status=none
like "$(hospes snapshot verify "$TMP/bad" 2>&1)" 'bad/memory: changed since it was written, at bytes 18874368 to 20971519' "a byte that has changed is found"
refused "and refused, if one asks" 'changed since it was written' --restore "$TMP/bad" --verify
truncate -s 1000 "$TMP/bad/state"
refused "a state that is cut short is refused" 'restore: .*bad: ' --restore "$TMP/bad"
cp "$from/state" "$TMP/bad/state"
truncate -s 100M "$TMP/bad/memory"
refused "memory that is cut short is" 'memory: the file has 104857600 bytes' --restore "$TMP/bad"
ip link del tap9
