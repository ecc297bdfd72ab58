#!/bin/bash
# testhost: --timeout 1200
# What bad input gets: one line that names the thing and the remedy, the right status, nothing left
# behind.
. "$(dirname "$0")/../lib.sh"

k=$HOSPES_GUEST_BZIMAGE
cd "$TMP" || exit 1

# refused STATUS REGEX NAME CMD…
refused() {
	local wanted=$1 regex=$2 name=$3 out status=0 lines
	shift 3
	out=$(timeout 90 "$@" 2>&1 </dev/null) || status=$?
	lines=$(grep -c . <<<"$out")
	if [ "$status" = "$wanted" ] && [ "$lines" = 1 ] && grep -qE -e "$regex" <<<"$out"; then
		pass "$name"
	else
		fail "$name"
		diag "status $status (wanted $wanted), $lines lines: $out"
	fi
}

refused 2 "unknown option '--kernal' .did you mean '--kernel'" "a misspelt option" hospes run --kernal x
refused 2 "needs a value" "an option without its value" hospes run --kernel
refused 2 "unknown command 'rum'" "a misspelt command" hospes rum
refused 1 "no kernel" "no kernel at all" hospes run
refused 1 "did you mean 'readonly'" "a misspelt key" hospes run --kernel "$k" --disk path=x,readnly=on
echo '{"memory": {"size": 1,}}' >comma.json
refused 1 "line 1, column 23" "a trailing comma" hospes run comma.json --kernel "$k"
echo '{"kernel": {"path": "k"}, "memroy": {}}' >key.json
refused 1 "did you mean 'memory'" "a misspelt key in the file" hospes run key.json
refused 1 "No such file" "a configuration file that is not there" hospes run nowhere.json
{ head -c 40 /dev/zero; printf '_FVH'; head -c 4000 /dev/zero; } >OVMF.fd
refused 1 "a flash image for QEMU .OVMF." "firmware that wants QEMU" hospes run --firmware OVMF.fd

# How the library refuses files, devices and shapes is tests/native/test_refusals.c; here one of each, and what
# needs a real kernel or this host.
refused 1 "'nokernel': No such file" "no such kernel" hospes run --kernel nokernel
head -c 3000000 "$k" >"cut"
refused 1 "'cut'" "a kernel that is cut short" hospes run --kernel cut
refused 1 "memory|MiB" "a kernel larger than memory" hospes run --kernel "$HOSPES_DEBIAN_BZIMAGE" --memory 32M
truncate -s 1M disk
refused 1 "in use" "one disk twice" hospes run --kernel "$k" --disk path=disk --disk path=disk
refused 1 "there is no tap 'notap'" "no such tap" hospes run --kernel "$k" --net tap=notap
refused 1 "256 is not within" "too many CPUs" hospes run --kernel "$k" --cpus 256
refused 1 "no host CPU|CPU 200" "a pin to a CPU that is not there" hospes run --kernel "$k" --cpus 1,pin=200
refused 1 "this host has" "more memory than there is" hospes run --kernel "$k" --memory 1T
refused 1 "huge|hugepages" "huge pages that are not there" hospes run --kernel "$k" --memory 256M,backing=hugetlb-2M
refused 1 "relocations|nokaslr|randomis" "KASLR of a kernel that cannot" hospes run --kernel "$HOSPES_GUEST_VMLINUX" --kaslr on

mv /dev/kvm /dev/kvm.away
refused 1 "/dev/kvm is missing.*modprobe" "no /dev/kvm" hospes run --kernel "$k"
mv /dev/kvm.away /dev/kvm
chmod 600 /dev/kvm
mkdir -p home && chown nobody . home
refused 1 "group kvm" "no right to /dev/kvm" setpriv --reuid=65534 --regid=65534 --clear-groups \
	env HOME="$TMP/home" hospes run --kernel "$k"

guest_start holder hospes run --kernel "$k" --initrd "$HOSPES_GUEST_INITRD" --disk path=disk \
	--net tap=left0,create=on --cmdline 'console=ttyS0 quiet hospes.end=hang'
ok "a machine holds a disk and makes a tap" guest_wait_for holder 'end hang' 60
refused 1 "disk.*in use" "a disk of another machine" hospes run --kernel "$k" --disk path=disk
refused 1 "in use" "a tap of another machine" hospes run --kernel "$k" --net tap=left0
ok "the tap is there while it runs" ip link show left0
guest_kill holder
not_ok "nothing is left of the tap" ip link show left0
ok "nor of the lock" flock -n disk true
refused 1 "No such file" "and a failed start leaves no tap" hospes run --kernel nokernel --net tap=left1,create=on
not_ok "none" ip link show left1

# What this host uses itself is not written to. The file is a disk of the host, by a loop device.
truncate -s 64M host.img && mke2fs -qFt ext4 host.img && mkdir -p mnt
loop=$(losetup -f --show host.img)
run=(hospes run --kernel "$k" --initrd "$HOSPES_GUEST_INITRD" --cmdline "console=ttyS0 quiet hospes.end=poweroff")
refused 1 "host.img.*$loop is on it.*readonly=on" "the file below a loop device" "${run[@]}" --disk path=host.img
mount "$loop" mnt
refused 1 "mounted at $TMP/mnt; .*readonly=on" "a mounted block device" "${run[@]}" --disk "path=$loop"
exec 9<"$loop"
refused 1 "fd 9.*mounted at $TMP/mnt" "the same, handed in open" "${run[@]}" --disk fd=9
exec 9>&-
ok "it can be read meanwhile" "${run[@]}" --disk "path=$loop,readonly=on" </dev/null
umount mnt
# A program that opened it for itself alone shows nowhere.
: >excl.log
python3 -c 'import os, sys, time
os.open(sys.argv[1], os.O_RDWR | os.O_EXCL); print("open", flush=True); time.sleep(600)' "$loop" >excl.log &
wait_for excl.log open 30
refused 1 "in use on this host: another program" "a block device that a program has for itself" "${run[@]}" \
	--disk "path=$loop"
kill %+
wait %+ 2>/dev/null
guest_start holder "${run[@]/poweroff/hang}" --disk "path=$loop"
ok "a machine that has it" guest_wait_for holder 'end hang' 60
not_ok "keeps the host from mounting it" mount "$loop" mnt
guest_kill holder
losetup -d "$loop"

# Started by something that closed its standard descriptors: none of ours gets their numbers.
hospes run --kernel "$k" --initrd "$HOSPES_GUEST_INITRD" --console "serial,path=$TMP/closed.log" \
	--cmdline 'console=ttyS0 quiet hospes.end=hang' <&- >&- 2>&- &
ok "without standard descriptors it boots" wait_for closed.log 'end hang' 60 $!
is "$(readlink /proc/$!/fd/{0,1,2} | sort -u)" /dev/null "none of them is a file of ours"
kill -TERM $!
kill -TERM $!
wait $!
is $? 1 "and it can be ended"

# The terminal is as it was, however the machine ends: python gives it one.
cat >terminal.py <<'P'
import os, pty, select, signal, subprocess, sys, termios
how, command = sys.argv[1], sys.argv[2:]
main, side = pty.openpty()
before = termios.tcgetattr(side)
p = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
seen = b""
while b"HOSPES-GUEST: up" not in seen:
    seen += os.read(main, 4096)
raw = termios.tcgetattr(side) != before
if how == "escape":
    os.write(main, b"\x01x")
elif how == "abort":
    p.send_signal(signal.SIGABRT)
while p.poll() is None:
    try:
        if select.select([main], [], [], 0.1)[0]:
            os.read(main, 4096)
    except OSError:
        break
print("raw" if raw else "never raw", "same" if termios.tcgetattr(side) == before else "changed", p.wait())
P
for how in 'poweroff 0' 'escape 1' 'abort -6'; do
	read -r way status <<<"$how"
	end=hang
	[ "$way" != poweroff ] || end=poweroff
	out=$(timeout 120 python3 terminal.py "$way" hospes run --kernel "$k" --initrd "$HOSPES_GUEST_INITRD" \
		--cmdline "console=ttyS0 quiet hospes.end=$end" 2>&1)
	is "$out" "raw same $status" "the terminal is raw, and restored after: $way"
done
done_testing
