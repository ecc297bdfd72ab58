#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# 'hospes ctl NAME console': what a guest writes is read beside where it goes anyway, what is typed reaches it; from a
# pipe and from a terminal; by one at a time, and one who does not read stops nobody.
. "$(dirname "$0")/../lib.sh"
plan 21
unset XDG_RUNTIME_DIR
ctl() { timeout 300 hospes ctl "$@"; }
viewed() { hospes ctl tty status | jq -e ".devices[] | select(.id == \"$1\") | .viewed" >/dev/null; }

# shellcheck disable=SC2016 # the guest's
guest_start tty hospes run --name tty --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 128M \
	--console "serial,path=$TMP/serial" --console "virtio,path=$TMP/virtio" --cmdline \
	'console=ttyS0 quiet hospes.sh="exec 3<>/dev/ttyS0 4<>/dev/hvc0; (while read -r line <&4; do case $line in flood) head -c 2000000 /dev/zero >&4; echo >&4; echo flooded >&4 ;; *) echo too $line >&4 ;; esac; done) & echo up >&3; while read -r line <&3; do case $line in off) poweroff -f ;; *) echo heard $line >&3 ;; esac; done"'
ok "a guest with two consoles, of which nobody types" wait_for "$TMP/serial" '^up' 120 "${guest_pid[tty]}"

# A pipe. The end of what is typed is not the end of what is read.
mkfifo "$TMP/typed"
ctl tty console <"$TMP/typed" >"$TMP/first" 2>&1 &
first=$!
exec 5>"$TMP/typed"
echo one >&5
ok "what a pipe has reaches the guest, and what it says comes back" wait_for "$TMP/first" '^heard one' 60
ok "and is in the log too" wait_for "$TMP/serial" '^heard one' 10
unlike "$(cat "$TMP/first")" '^up' "but not what was before"
ok "the status says that somebody looks" viewed console0
like "$(ctl tty console </dev/null 2>&1)" "^hospes: tty: console 'console0': somebody looks at it already; take it from them: 'hospes ctl NAME console console0 force'" "another is refused"
exec 5>&-
ctl tty console console1 < <(echo two) >"$TMP/second" 2>&1 &
second=$!
ok "the other console is another's" wait_for "$TMP/second" '^too two' 60
ok "the first reads on" viewed console0

# Whoever takes it and does not read.
# shellcheck disable=SC2216 # nor does sleep
ctl tty console console1 force < <(echo flood) | sleep 1000 &
sleeper=$!
ok "who was there is shown out" wait_for "$TMP/second" 'somebody else has taken this console' 60
wait "$second"
is $? 0 "and ends"
ok "a guest whose viewer does not read writes on, two megabytes" wait_for "$TMP/virtio" '^flooded' 300
is "$(tr -dc '\0' <"$TMP/virtio" | wc -c)" 2000000 "all of it is in the log"

# A terminal.
cat >"$TMP/terminal.py" <<'PYTHON'
import os, pty, re, select, sys, termios, time
here, there = pty.openpty()
was = termios.tcgetattr(there)
pid = os.fork()
if pid == 0:
    os.login_tty(there)
    os.execvp("hospes", ["hospes", "ctl", "tty", "console", "console0", "force"])
seen = b""
def until(pattern):
    global seen
    end = time.monotonic() + 120
    while not re.search(pattern, seen):
        if time.monotonic() > end:
            sys.exit(f"{pattern}: not in {seen}")
        if select.select([here], [], [], 1)[0]:
            seen += os.read(here, 4096)
    seen = b""
until(rb"Ctrl-A x leaves it")
os.write(here, b"by hand\r")
until(rb"heard by hand")
print("raw" if not termios.tcgetattr(there)[3] & (termios.ICANON | termios.ECHO | termios.ISIG) else "not raw")
os.write(here, b"\x01h")
until(rb"the machine goes on")
os.write(here, b"\x01s")
until(rb'"state": "running"')
os.write(here, b"\x01\x01x\r")
until(rb"heard .*x")
os.write(here, b"\x01x")
print("status", os.waitpid(pid, 0)[1])
print("restored" if termios.tcgetattr(there) == was else "changed")
PYTHON
timeout 600 python3 "$TMP/terminal.py" >"$TMP/terminal.out" 2>&1
wait "$first"
is "$(sed -n 1p "$TMP/terminal.out")" raw "a terminal types and reads, raw" || diag "$(cat "$TMP/terminal.out")"
is "$(sed -n 2p "$TMP/terminal.out")" "status 0" "Ctrl-A has help, the status, a Ctrl-A for the guest, and the end"
is "$(sed -n 3p "$TMP/terminal.out")" restored "and the terminal is as it was"
not_ok "nobody looks any more" viewed console0

# Refusals.
like "$(ctl tty console none </dev/null 2>&1)" "'none'.*'hospes ctl tty status' lists the devices" "a console that is none is refused"
like "$(curl -sS --unix-socket /run/hospes/tty.sock -d '{"fd": 0}' http://localhost/v1/consoles/console0/view)" \
	"hospes ctl NAME console" "so is a request without a socket"

ctl tty console < <(echo off) >"$TMP/last" 2>&1 &
last=$!
guest_wait tty 60
is $? 0 "the guest is switched off from there"
wait "$last"
is $? 0 "and so ends the view of it"
kill "$sleeper"
is "$(grep -c 'Internal\|BUG' "$TMP/tty.log")" 0 "without a word of complaint"
