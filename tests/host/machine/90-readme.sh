#!/bin/bash
# testhost: --cpus 4 --memory 8G --timeout 900
# The README's examples, as they are written there, do what it says.
. "$(dirname "$0")/../lib.sh"
plan 33

# The commands of a section, continued lines joined: those that begin with the words given.
examples() {
	sed -n '/^## Examples/,/^## A real device/s/^    //p' "$HOSPES_SRC/README.md" |
		sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba' -e '}' | grep "^$1"
}
example() { examples "$1" | sed -n "${2}p"; }

# What they name: a kernel and an initial RAM disk here, Debian's in /boot, a disk with a partition.
cd "$TMP" || exit 1
ln -s "$HOSPES_GUEST_BZIMAGE" bzImage
ln -s "$HOSPES_GUEST_INITRD" initrd.img
mkdir -p /boot
ln -sf "$HOSPES_DEBIAN_BZIMAGE" /boot/vmlinuz-6.12.0-amd64
ln -sf "$HOSPES_DEBIAN_INITRD" /boot/initrd.img-6.12.0-amd64
sectors=$(($(stat -L -c %s "$HOSPES_GUEST_DISK") / 512))
le32() { printf '%08x' "$1" | sed 's/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/'; }
truncate -s $(((sectors + 2048) * 512)) debian.img
printf '\x00\x00\x00\x00\x83\x00\x00\x00%b%b' "$(le32 2048)" "$(le32 "$sectors")" |
	dd of=debian.img bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of=debian.img bs=1 seek=510 conv=notrunc status=none
dd if="$HOSPES_GUEST_DISK" of=debian.img bs=1M seek=1 conv=sparse,notrunc status=none

is "$(examples 'hospes run' | grep -c .)" 12 "there are twelve machines to try"

# shellcheck disable=SC2046 # the words of a command line
run() { # NAME COMMANDLINE
	diag "$2"
	eval "guest_start $1 $2"
}

run terminal "$(example 'hospes run --kernel bzImage' 1)"
ok "a kernel and a RAM disk: a shell" guest_wait_for terminal '/ # ' 90 || guest_show terminal
# shellcheck disable=SC2016 # for the guest
guest_send terminal 'echo said-$((40 + 2)); poweroff -f'
ok "that answers" guest_wait_for terminal '^said-42' 30
guest_wait terminal 30
is $? 0 "and powers off"

run debian "$(example 'hospes run --kernel /boot' 1)"
ok "Debian from a disk: it boots to a login" guest_wait_for debian '(login:|root@[a-z]*:.*#)' 300 || guest_show debian
ok "its network is there" ip link show tap0
is "$(for t in "/proc/${guest_pid[debian]}"/task/*; do grep -h Cpus_allowed_list "$t/status"; done |
	sort -u | grep -cE '[[:space:]][0-3]$')" 4 "its vCPUs are pinned"
guest_kill debian

read -ra passt <<<"$(example passt 1)"
"${passt[@]}" --foreground --runas 0 >passt.log 2>&1 &
passt_pid=$!
listening() { ss -xlH | grep LISTEN | grep -qF /tmp/net.sock; }
ok "passt runs" retry 20 listening || diag "$(cat passt.log)"
mkdir -p ~/src && echo a-file-of-the-host >~/src/file
run user "$(example 'hospes run --kernel bzImage' 2) --cmdline 'console=ttyS0 quiet hospes.sh=\"ip link show eth0; mount -t virtiofs src /mnt; cat /mnt/file\"'"
guest_wait user 90
is $? 0 "user-mode networking: the guest ends"
like "$(guest_log user)" 'eth0: <' "with a network card" || guest_show user
like "$(guest_log user)" '^a-file-of-the-host' "and a folder" || guest_show user
kill "$passt_pid" 2>/dev/null

unset XDG_RUNTIME_DIR
truncate -s 16M data.img
line=$(example 'hospes run --name' 1)
run web "${line% &}"
ok "a machine with a name: it is listed" retry 60 eval "$(example 'hospes list' 1) | grep -q '^web .*running'"
ok "its guest is up" guest_wait_for web '/ # ' 90 || guest_show web
is "$(eval "$(example 'hospes ctl web add' 1)" 2>&1)" data "it gets a disk"
# shellcheck disable=SC2016 # for the guest
guest_send web 'until [ -b /dev/vda ]; do usleep 100000; done; echo found-$((40 + 2))'
ok "that the guest finds" guest_wait_for web '^found-42' 60
ok "and is asked for" eval "$(example 'hospes ctl web remove' 1)"
ok "and gives back" retry 60 eval "! hospes ctl web status | grep -q '\"data\"'"
ok "it is asked to power off" eval "$(example 'hospes ctl web shutdown' 1)"
guest_kill web

line=$(example 'hospes run --name' 2)
run changing "${line% &}"
ok "a machine with a balloon and a debugger: its guest is up" guest_wait_for changing '/ # ' 90 || guest_show changing
ok "it is asked for memory" eval "$(example 'hospes ctl web set balloon' 1)"
held() { hospes ctl web status | jq -e '.devices[] | select(.id == "balloon") | .actual_bytes == 134217728' >/dev/null; }
ok "and gives it" retry 60 held
ok "it gets memory" eval "$(example 'hospes ctl web set memory' 1)"
more() { hospes ctl web status | jq -e '.memory.bytes == 2147483648' >/dev/null; }
ok "and has it" retry 60 more
ok "its disk's share is set" eval "$(example 'hospes ctl web set disk0' 1)"
ln -s "$HOSPES_GUEST_VMLINUX" vmlinux
like "$(eval "$(example gdb 1) -batch -ex 'info threads'" 2>&1 </dev/null)" 'Thread 1' "a debugger sees its vCPU"
guest_kill changing

line=$(example 'hospes run --name' 3)
run kept "${line% &}"
ok "a machine to be kept: its guest is up" guest_wait_for kept '/ # ' 90 || guest_show kept
guest_send kept 'kept=yes'
ok "it is written into a directory" eval "$(example 'hospes ctl kept' 1)"
run again "$(example 'hospes run --restore' 1)"
# shellcheck disable=SC2016 # for the guest
guest_send again 'echo "kept: $kept"'
ok "and goes on from there" guest_wait_for again '^kept: yes' 60 || guest_show again
guest_kill again

line=$(example 'hospes run --name' 4)
run going "${line% &}"
ok "a machine that is to move: its guest is up" guest_wait_for going '/ # ' 90 || guest_show going
guest_send going 'kept=moved'
line=$(example 'hospes run --name' 5)
run there "${line% &}"
retry 60 test -S /tmp/there.sock
ok "it moves" eval "$(example 'hospes ctl going' 1)"
# shellcheck disable=SC2016 # for the guest
guest_send there 'echo "kept: $kept"'
ok "and works there" guest_wait_for there '^kept: moved' 60 || guest_show there
guest_kill there

cat >machine.json <<'JSON'
{"kernel": {"path": "bzImage", "initrd": "initrd.img",
	"cmdline": "console=ttyS0 quiet hospes.test=info"}, "memory": {"size": "256M"}}
JSON
out=$(eval "$(example 'hospes run machine.json' 1)" 2>&1)
like "$out" '"cmdline"' "a document: what it comes to" || diag "$out"
run document "$(example 'hospes run machine.json --memory' 1 | sed 's/8G/2G/')"
guest_wait document 90
is $? 0 "and it runs" || guest_show document
