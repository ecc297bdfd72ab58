#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# A machine with a name is controlled from beside it, by 'hospes ctl' and by curl: status, pause, resume,
# settings, events, metrics, power off; and what is refused says what to do.
. "$(dirname "$0")/../lib.sh"
plan 53

unset XDG_RUNTIME_DIR
socket=/run/hospes/web.sock
truncate -s 64M "$TMP/disk"

# It says a line each second by its own clock, so that one can see it stand still.
guest_start web hospes run --name web --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--memory 128M --disk path="$TMP/disk,id=data" --console serial --cmdline \
	'console=ttyS0 quiet hospes.sh="echo listening; while sleep 1; do echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=64k count=4 2>/dev/null; echo size $(cat /sys/block/vda/size) $(ls /sys/block); done"'
ok "a guest with a name runs" guest_wait_for web '^size' 60

ctl() { timeout 60 hospes ctl "$@"; }
web() { curl -sS --max-time 60 --unix-socket "$socket" "$@"; }
code() { web -o "$TMP/body" -w '%{http_code}' "$@"; }
url=http://localhost

is "$(stat -c '%a %U' $socket)" "600 root" "its socket is root's alone"
like "$(hospes list)" '^web +running +[0-9]+ +128 MiB +/run/hospes/web.sock' "hospes list has it"
is "$(ctl web status | jq -r '.name + " " + .state')" "web running" "ctl status"
is "$(web $url/v1/status | jq .pid)" "${guest_pid[web]}" "curl says the same machine"
is "$(ctl "$socket" status | jq -r .name)" "web" "a path with a slash names it too"

# Readers of events, one of each kind, before anything happens.
ctl web events >"$TMP/events" &
curl -sSN --unix-socket "$socket" $url/v1/events >"$TMP/events.curl" &
ok "a reader hears the state at once" wait_for "$TMP/events" '"event":"stream","state":"running"' 20
ok "so does curl" wait_for "$TMP/events.curl" '"event":"stream","state":"running"' 20

ok "ctl pause" ctl web pause
is "$(ctl web status | jq -r .state)" "paused" "it is paused"
like "$(hospes list)" '^web +paused' "hospes list says so"
lines=$(grep -c '^size' "$TMP/web.log")
ok "the event comes" wait_for "$TMP/events" '"event":"state","state":"paused"' 20
is "$(grep -c '^size' "$TMP/web.log")" "$lines" "the guest stands still"
is "$(web -X POST $url/v1/resume)" '{"state":"running"}' "curl resumes it"
ok "the guest goes on" guest_times web '^size' $((lines + 2)) 30

# A setting that the guest sees.
truncate -s 96M "$TMP/disk"
ok "ctl set changes the disk's size" ctl web set data.size=auto
ok "the guest sees it" guest_wait_for web '^size 196608 ' 30
is "$(code -X PUT -d '{"bytes": 33554432}' $url/v1/disks/data/size)" 204 "curl changes it"
ok "the guest sees that too" guest_wait_for web '^size 65536 ' 30

# What the disk may move: a quarter of a MiB, which the guest reads each time, takes longer than it waits.
test_rests() { [ "$(rests)" -gt 2 ]; }
rests() { ctl web status | jq '.devices[] | select(.id == "data") | .rate.rests // 0'; }
is "$(rests)" 0 "nothing limits the disk"
ok "ctl set limits it" ctl web set data.bytes_per_s=200K
ok "its queue rests, again and again" retry 60 test_rests
ok "ctl set lets it go" ctl web set data.bytes_per_s=0

# A disk is opened by ctl, which the machine could not do, and goes when the guest has given it up.
truncate -s 16M "$TMP/second"
is "$(ctl web add --disk "path=$TMP/second,id=second" 2>&1)" second "ctl adds a disk"
ok "the guest finds it" guest_wait_for web 'vdb' 60
ok "the event says which" wait_for "$TMP/events" '"event":"device_added","device":"second"' 10
ok "ctl asks for it back" ctl web remove second
ok "the guest gives it up" wait_for "$TMP/events" '"event":"device_removed",.*"device":"second"' 60
like "$(ctl web remove second 2>&1)" "hospes: web: .*second" "and then there is none to remove"
like "$(ctl web add --disk "$TMP/disk" 2>&1)" "^hospes: disk 'new' \\($TMP/disk\\): in use: another machine" "its own disk it gets only once"

# Refusals: what, and what to do.
is "$(code -X PUT -d '{"bytes": 512}' $url/v1/disks/none/size)" 404 "a disk that is none is refused"
like "$(jq -r '.code + ": " + .text + ": " + .remedy' "$TMP/body")" "not_found: .*'none'.*: .+" "with all three words"
is "$(code -X PUT -d '{"bytes": "1G"}' $url/v1/disks/data/size)" 400 "so is a value of another type"
is "$(code -X POST -d '{"disk": {"path": "/etc/passwd"}}' $url/v1/devices)" 400 "so is a path"
like "$(jq -r .remedy "$TMP/body")" "'hospes ctl NAME add --disk" "and the command that opens it is named"
is "$(code -X PUT -d '{"strategy": "strict"}' $url/v1/strategy)" 409 "so is a strategy without a device for it"
is "$(code -X POST --data-binary "@$TMP/disk" $url/v1/pause)" 413 "so is a body of 96 MiB"
like "$(ctl web set data.size=9T 2>&1)" '^hospes: web: .*data.*' "ctl says why"
like "$(ctl web set none.link=up 2>&1)" "^hospes: web: .*'none'.*; 'hospes ctl web status' lists the devices" "and where the devices are listed"
like "$(ctl nobody status 2>&1)" "no machine listens at /run/hospes/nobody.sock; 'hospes list'" "no machine, no socket"
like "$(hospes run --name web --kernel "$HOSPES_GUEST_BZIMAGE" 2>&1 </dev/null)" \
	'web.sock: a machine listens there already; choose another name' "a name belongs to one machine"
setpriv --reuid 65534 --clear-groups hospes ctl web pause >"$TMP/other" 2>&1
like "$(cat "$TMP/other")" "belongs to another user" "another user is kept out"

# A hundred clients that do nothing, or half of something, cost nobody an answer.
for _ in $(seq 100); do nc -U "$socket" </dev/zero >/dev/null 2>&1 & done
for _ in $(seq 100); do printf 'GET /v1/sta' | nc -U "$socket" >/dev/null 2>&1 & done
is "$(web $url/v1/status | jq -r .state)" "running" "two hundred bad clients later it answers"

web $url/metrics >"$TMP/metrics"
like "$(cat "$TMP/metrics")" '^hospes_state\{state="running"\} 1$' "metrics have the state"
hospes metrics --all >"$TMP/all"
if command -v promtool >/dev/null; then
	ok "promtool has nothing to complain of" promtool check metrics <"$TMP/metrics"
	ok "nor of those of all machines" promtool check metrics <"$TMP/all"
else
	skip "promtool has nothing to complain of" "no promtool (package prometheus)"
	skip "nor of those of all machines" "no promtool"
fi
like "$(cat "$TMP/all")" '^hospes_up\{machine="web"\} 1$' "they have a label for each"
if command -v openapi-spec-validator >/dev/null; then
	ok "docs/openapi.json is OpenAPI" openapi-spec-validator "$HOSPES_SRC/docs/openapi.json"
else
	skip "docs/openapi.json is OpenAPI" "no openapi-spec-validator (package python3-openapi-spec-validator)"
fi

# The end, by the power button; the readers hear it.
ok "ctl shutdown" ctl web shutdown
guest_wait web 60
is $? 0 "the guest powers off"
ok "the last event is the end" wait_for "$TMP/events" '"event":"state","state":"stopped"' 10
ok "for curl too" wait_for "$TMP/events.curl" '"outcome":"powered off"' 10
ok "its socket is gone" test ! -e "$socket"
