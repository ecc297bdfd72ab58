#!/bin/bash
# testhost: --cpus 2 --timeout 300
# An ordinary user's qcow2 image and folder: hospes starts qemu-storage-daemon and virtiofsd for them, confined, keeps
# them as long as their device or the machine, says how one ended, and leaves none behind.
. "$(dirname "$0")/../lib.sh"
user=65534
chown $user /dev/kvm && chmod 755 "$TMP"
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"
mkdir "$TMP/share" "$TMP/late" "$TMP/run" "$TMP/images" "$TMP/elsewhere" "$TMP/src"
head -c 16M /dev/urandom >"$TMP/base.raw"
qemu-img convert -O qcow2 "$TMP/base.raw" "$TMP/images/base.qcow2"
cp "$TMP/images/base.qcow2" "$TMP/elsewhere"
for disk in q late; do
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$TMP/images/$disk.qcow2"
done
qemu-img create -q -f qcow2 -b "$TMP/elsewhere/base.qcow2" -F qcow2 "$TMP/images/far.qcow2"
echo "from the host" >"$TMP/share/from-host"
chown -R $user "$TMP"/{share,late,run,images,src} "$TMP/root.img"
as_user() {
	XDG_RUNTIME_DIR=$TMP/run setpriv --reuid $user --regid $user --clear-groups "$@"
}
ctl() { as_user timeout 60 hospes ctl da "$@"; }
guest=(--kernel "$HOSPES_GUEST_BZIMAGE" --kernel-cache off --memory 512M)
refused() { as_user timeout 60 hospes run "${guest[@]}" "$@" 2>&1 | tail -n 1; }
daemons() { pgrep -u $user -c "$@"; }

guest_start da as_user hospes run --name da "${guest[@]}" --cpus 2 --disk "path=$TMP/root.img" \
	--disk "path=$TMP/images/q.qcow2,queues=2,id=q" --share "$TMP/share,id=folder" --cmdline \
	'console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh="stty -echo </dev/ttyS0; echo ready; echo =0 0; . /dev/ttyS0"'
ok "a guest has an image and a folder" guest_wait_for da '^ready' 120 || guest_show da

: >"$TMP/runs"
in_guest() { # SECONDS CMD
	local n
	echo >>"$TMP/runs"
	n=$(wc -l <"$TMP/runs")
	guest_send da "{ $2; } >/tmp/out 2>&1; s=\$?; cat /tmp/out; echo; echo =$n \$s"
	guest_wait_for da "^=$n " "$1" || { guest_show da; return 1; }
	tr -d '\r' <"$TMP/da.log" | sed "1,/^=$((n - 1)) /d; /^=$n /,\$d" >"$TMP/out"
	tr -d '\r' <"$TMP/da.log" | grep -qx "=$n 0" || { cat "$TMP/out"; return 1; }
}
ctl events >"$TMP/events" &

ok "the image has what its backing file has" in_guest 60 "head -c 16M /dev/vdb | sha256sum"
like "$(cat "$TMP/out")" "$(sha256sum <"$TMP/base.raw" | cut -d' ' -f1)" "to the byte"
ok "it is written" in_guest 60 \
	"head -c 4M /dev/urandom >/tmp/in; dd if=/tmp/in of=/dev/vdb bs=64k conv=fsync; sha256sum </tmp/in"
written=$(grep -oE '[0-9a-f]{64}' "$TMP/out")
ok "the folder is mounted by the name that it has" in_guest 60 "mount -t virtiofs share /mnt && cat /mnt/from-host"
ok "what the guest writes" in_guest 30 "echo from-guest >/mnt/a; mkdir /mnt/d; mv /mnt/a /mnt/d/b; sync"
is "$(cat "$TMP/share/d/b")" from-guest "is in the folder"
is "$(stat -c %u "$TMP/share/d/b")" $user "and the user's"
pid=$(pgrep -u $user -x virtiofsd)
is "$(awk '/^NoNewPrivs/ { print $2 }' "/proc/$pid/status")" 1 "the daemon gets no rights any more"

like "$(refused --disk "path=$TMP/images/q.qcow2,id=q")" 'Stop the other machine' "an image in use is refused, and why"
like "$(refused --disk "path=$TMP/images/far.qcow2")" 'elsewhere/base.qcow2. is not in its folder.*backing=DIR' \
	"so is a backing file elsewhere"
like "$(refused --share "$TMP/none")" 'No such file' "and a folder that is not there"
like "$(as_user timeout 60 env PATH=/nowhere "$(command -v hospes)" run "${guest[@]}" --disk "$TMP/images/late.qcow2" 2>&1)" \
	'apt install qemu-utils' "what is missing is said with its package"

# By 'hospes ctl', which ends at once.
is "$(ctl add --share "$TMP/late,readonly=on,id=late" 2>&1)" late "a folder is added"
ok "the guest mounts it" in_guest 60 \
	'for i in $(seq 100); do mount -t virtiofs late /media 2>/dev/null && break; sleep 0.2; done; mountpoint /media'
not_ok "and cannot write there" in_guest 30 "touch /media/x"
is "$(ctl add --disk "path=$TMP/images/late.qcow2,id=more" 2>&1)" more "an image, too"
ok "which the guest reads" in_guest 60 \
	'for i in $(seq 100); do test -e /dev/vdc && break; sleep 0.2; done; head -c 16M /dev/vdc | sha256sum'
like "$(cat "$TMP/out")" "$(sha256sum <"$TMP/base.raw" | cut -d' ' -f1)" "as it is"
is "$(daemons qemu-storage-d) $(daemons virtiofsd)" "2 2" "each has a daemon"
ctl remove more && wait_for "$TMP/events" '"device_removed".*"more"' 60
gone() { [ "$(daemons "$1")" = "$2" ]; }
ok "which ends with the device" retry 30 gone qemu-storage-d 1

# One that is killed.
kill -9 "$pid"
ok "an event says how the daemon ended" wait_for "$TMP/events" 'virtiofsd was killed by signal 9' 60 ||
	{ diag "$(cat "$TMP/events")"; guest_show da; }
like "$(grep 'was killed' "$TMP/events")" '"folder"' "and whose it was"
ok "the guest goes on" in_guest 30 "uptime"

# Not what the folder has: nobody takes that any more.
guest_send da "busybox poweroff -n -f"
guest_wait da 60
is $? 0 "the guest powers off"
is "$(daemons qemu-storage-d)" 0 "its daemon has ended when the machine has"
ok "the other ends, too" retry 30 gone virtiofsd 0
is "$(pgrep -u $user -f hospes | wc -l)" 0 "and no keeper is left" || diag "$(ps -u $user -f)"
ok "the image is whole" qemu-img check -q "$TMP/images/q.qcow2"
qemu-img convert -O raw "$TMP/images/q.qcow2" "$TMP/q.raw"
is "$(head -c 4M "$TMP/q.raw" | sha256sum | cut -d' ' -f1)" "$written" "and has what was written"
is "$(find "$TMP/run" -name "hospes-*" -o -name "*.sock" | wc -l)" 0 "nothing is left of its sockets"
done_testing
