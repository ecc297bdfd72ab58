#!/bin/bash
# testhost: outside
# What a caller of tools/testhost sees: status, output, arguments, $OUT, time-out, interruption.
. "$(dirname "$0")/../lib.sh"
plan 20
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}

cat >"$TMP/all.sh" <<'END'
echo "arguments: $# <$1> <$2>"
echo "to stderr" >&2
echo "again to stderr" >/dev/stderr
echo "value: $HOSPES_TEST_WORD"
cat "$(dirname "$0")/beside"
touch "$(dirname "$0")/mine" 2>/dev/null && echo "the folder is writable"
mkdir "$OUT/dir" && head -c 100000 /dev/zero >"$OUT/dir/zeroes"
seq 20000
sleep 1000 &
exit 42
END
echo "a neighbour" >"$TMP/beside"
status=0
HOSPES_TEST_WORD=passed testhost_run --timeout 120 --out "$TMP/out" "$TMP/all.sh" 'two words' "quo'te" >"$TMP/1" 2>"$TMP/2" ||
	status=$?
is "$status" 42 "the script's exit status"
like "$(cat "$TMP/1")" "^arguments: 2 <two words> <quo'te>" "its arguments"
like "$(cat "$TMP/2")" '^to stderr' "stderr is stderr"
like "$(cat "$TMP/2")" '^again to stderr' "and can be opened again"
like "$(cat "$TMP/1")" '^value: passed' "HOSPES_TEST_ variables are passed on"
like "$(cat "$TMP/1")" '^a neighbour' "its folder is visible"
unlike "$(cat "$TMP/1")" 'is writable' "and read-only"
is "$(stat -c %s "$TMP/out/dir/zeroes")" 100000 "what it wrote to \$OUT is there"
is "$(grep -cE '^[0-9]+$' "$TMP/1")" 20000 "all of a long output"
ok "L1's console is there" test -e "$TMP/out/l1-console.log"

status=0
testhost_run --timeout 8 "$TMP/hang.sh" 2>/dev/null || status=$?
is "$status" 125 "125 for a script that is not there"
echo 'echo begun; while :; do sleep 100; done' >"$TMP/hang.sh"
status=0
start=$SECONDS
testhost_run --timeout 20 "$TMP/hang.sh" >"$TMP/1" 2>&1 || status=$?
is "$status" 124 "124 after the time-out"
like "$(cat "$TMP/1")" 'timeout: not done after 20 s' "with a line that says so"
ok "in time" test $((SECONDS - start)) -lt 60

echo 'echo c >/proc/sysrq-trigger' >"$TMP/panic.sh"
status=0
testhost_run --timeout 120 "$TMP/panic.sh" >"$TMP/1" 2>&1 || status=$?
is "$status" 122 "122 when L1's kernel crashes"
like "$(cat "$TMP/1")" 'sysrq triggered crash|Kernel panic' "and why"
# The line by which L1's kernel tells that a timer did not wake it, at a level that the console shows.
cat >"$TMP/lost.sh" <<'SCRIPT'
echo "<2>rcu: rcu_sched kthread timer wakeup didn't happen for 9999 jiffies!" >/dev/kmsg
sleep 1000
SCRIPT
status=0
"$testhost" run --no-hospes --timeout 100 "$TMP/lost.sh" >"$TMP/1" 2>&1 || status=$?
is "$status" 123 "123, and at once, when QEMU loses L1's timers"

# Ctrl-C and kill, in the middle of a run: nothing may stay.
for signal in INT TERM KILL; do
	: >"$TMP/$signal"
	setsid "$testhost" run --no-hospes "$TMP/hang.sh" >>"$TMP/$signal" 2>&1 &
	pid=$!
	wait_for "$TMP/$signal" begun 120 "$pid" || diag "it never began"
	qemu=$(pgrep -P "$pid" -f qemu-system)
	kill -"$signal" "$pid"
	wait "$pid" 2>/dev/null
	ok "SIG$signal: QEMU is gone" retry 10 sh -c "! kill -0 $qemu 2>/dev/null"
done
