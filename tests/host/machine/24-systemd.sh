#!/bin/bash
# testhost: --cpus 2 --memory 4G --timeout 400 destructive
# A machine as a unit of a real systemd, which is process 1 of a PID namespace here: a user of its own, readiness,
# the control socket, a credential, a passed-through device, the watchdog, restarts and the end.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
plan 26
ok "$nvme is bound" hospes vf bind "$nvme"
node=/dev/vfio/$(basename "$(readlink "/sys/bus/pci/devices/$nvme/iommu_group")")
chgrp kvm /dev/kvm 2>/dev/null || { groupadd -r kvm && chgrp kvm /dev/kvm; }
chmod 660 /dev/kvm

units=/etc/systemd/system
program=$HOSPES_BUILD/cli/hospes
mkdir -p /etc/hospes "$units/hospes@web.service.d"
sed "s,^ExecStart=[^ ]*,ExecStart=$program," "$HOSPES_BUILD/cli/hospes@.service" >"$units/hospes@.service"
cp "$HOSPES_SRC/cli/systemd/hospes@.socket" "$units"
install -m 600 /dev/null /etc/hospes/secret
echo 'a secret' >/etc/hospes/secret
cat >"$units/hospes@web.service.d/device.conf" <<END
[Service]
LoadCredential=test.secret:/etc/hospes/secret
ExecStartPre=+$program vf bind $nvme --owner hospes-web
WatchdogSec=10s
Restart=no
END
# shellcheck disable=SC2016 # the guest's
jq -n --arg kernel "$HOSPES_GUEST_BZIMAGE" --arg disk root.img --arg nvme "$nvme" '{
	kernel: {path: $kernel, cmdline: "console=ttyS0 quiet root=/dev/vda rw init=/usr/lib/hospes/init hospes.sh=\"dmidecode -t 11; lspci -n; echo waiting; sleep 1000\""},
	memory: {size: "256M"}, disks: [{path: $disk}], credentials: [{name: "test.secret"}],
	passthrough: [{device: $nvme}]}' >/etc/hospes/web.json
# Its files are its own user's, which systemd sees to when it starts it.
mkdir -p /var/lib/private/hospes/web
cp --sparse=always "$HOSPES_GUEST_DISK" /var/lib/private/hospes/web/root.img
# So that the first boot of this systemd does not make caches.
touch /etc/.updated /var/.updated
cat >"$units/test.target" <<'END'
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
END

# shellcheck disable=SC2016 # of the shell that becomes it
unshare --fork --pid --mount --cgroup --ipc --uts --kill-child sh -c '
	mount --make-rshared / && mount -t proc proc /proc && mount -t tmpfs run /run && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
	exec env -i PATH="$PATH" container=test /lib/systemd/systemd --system --unit=test.target' >"$TMP/systemd.log" 2>&1 </dev/null &
holder=$!
manager() { pgrep -P "$holder"; }
in_it() { nsenter -t "$(manager)" -m -p -C -i -u -- "$@"; }
up() { in_it systemctl is-active test.target; }
ok "systemd is up" retry 60 up || bail "$(tail "$TMP/systemd.log")"
unit() { in_it systemctl show -P "$1" hospes@web; }
journal() { in_it journalctl -q -o cat -u hospes@web; }
said() { journal | grep -qaE -e "$1"; }
show() { journal | tail -n 30 | diag_all; in_it systemctl status --no-pager hospes@web 2>&1 | diag_all; }
diag_all() { sed 's/^/# /'; }

ok "the unit is one that systemd takes" in_it systemd-analyze verify --man=no hospes@web.service
ok "the machine starts, which says that its guest runs" in_it systemctl start hospes@web || { show; bail "it does not start"; }
is "$(unit ActiveState)/$(unit StatusText)" "active/the guest runs" "it is ready, and says so"
pid=$(unit MainPID)
field() { in_it sed -n "s/^$1:[[:space:]]*//p" "/proc/$pid/status"; }
unlike "$(field Uid)" '^0' "it has a user of its own"
is "$(field CapEff)/$(field CapBnd)/$(field NoNewPrivs)" 0000000000000000/0000000000000000/1 "without capabilities"
is "$(stat -c %u "$node")" "$(field Uid | cut -f1)" "whose the device's node is"
ok "the guest is up" retry 120 said '^waiting' || show
like "$(journal)" 'io\.systemd\.credential\.binary:test\.secret=YSBzZWNyZXQK' "with its credential in the firmware's tables"
like "$(journal)" '0108: 1b36:0010' "and the NVMe controller"
like "$(in_it stat -c '%U %a' /run/hospes/web.sock)" '^root 600$' "the control socket is root's"
is "$(in_it hospes ctl web status | jq -r '.name + " " + .state')" "web running" "hospes ctl reaches it"
like "$(in_it hospes list)" '^web +running' "and hospes list shows it"
layers=$(in_it hospes ctl web status | jq -r '.sandbox.layers | join(" ")')
is "$layers" "no_new_privs landlock seccomp" "it is confined besides, as anywhere"
in_it hospes ctl web pause
paused() { [ "$(unit StatusText)" = "the guest is paused" ]; }
ok "a pause is in its status" retry 20 paused
in_it hospes ctl web resume
# Longer than the watchdog waits.
older() { [ "$(($(in_it cut -d. -f1 /proc/uptime) - $(unit ExecMainStartTimestampMonotonic) / 1000000))" -ge 15 ]; }
ok "it has run for longer than the watchdog waits" retry 60 older
is "$(unit ActiveState)/$(unit NRestarts)/$(unit MainPID)" "active/0/$pid" "the watchdog leaves a machine alone that lives"
in_it kill -STOP "$pid"
gone() { [ "$(unit Result)" = watchdog ]; }
ok "and ends one that does not" retry 60 gone || show
sockets() { in_it systemctl is-active hospes@web.socket | grep -qE '^(inactive|failed)$'; }
ok "the control socket goes with it" retry 20 sockets
ok "so does its file" [ ! -e "/proc/$(manager)/root/run/hospes/web.sock" ]

ok "it starts again" in_it systemctl start hospes@web || show
waiting() { [ "$(journal | grep -ac '^waiting')" = 2 ]; }
ok "the guest is up again" retry 120 waiting || show
in_it systemctl kill --kill-whom=main --signal=SIGRTMIN+4 hospes@web
over() { [ "$(unit ActiveState)" = inactive ]; }
ok "machined's signal presses the power button" retry 60 over || show
is "$(unit Result)/$(unit ExecMainStatus)" success/0 "and that is no failure"
ok "nothing of it is left in /run/hospes" sh -c "! ls -A /proc/$(manager)/root/run/hospes | grep ."
kill "$holder"
