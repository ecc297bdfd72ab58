#!/bin/bash
# testhost: --cpus 2 --timeout 300 shared long
# What a newcomer sees of tools/quickstart's guest, in a log that is no terminal: what the guest shows of itself, no
# warnings of its kernel, no colours. Only with HOSPES_LONG=1.
. "$(dirname "$0")/../lib.sh"
plan 5

timeout 200 "$HOSPES_SRC/tools/lib/first-guest" "$TMP" --demo >"$TMP/log" 2>&1 </dev/null
is $? 0 "the first guest ends by itself" || diag "$(tail -n 20 "$TMP/log")"
log=$(tr -d '\r' <"$TMP/log")
like "$log" '^Linux [0-9]' "it shows its kernel"
like "$log" '1 received, 0% packet loss' "and reaches its network"
unlike "$log" $'\033' "there are no colours"
unlike "$log" '^\[ *[0-9]+\.[0-9]+\] .*([Ww]arn|[Ff]ail|[Ee]rror|cannot|deprecated)' "and no warnings of its kernel"
