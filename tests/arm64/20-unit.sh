#!/bin/bash
# testhost: --timeout 1200
# The unit tests, natively: one case for each program.
. "$(dirname "$0")/../host/lib.sh"

# Some programs need a file system that takes any flags of open().
mount -t tmpfs tmpfs /var/tmp
export IASL FAKE_DAEMON=$HOSPES_BUILD/tests/unit/cli/fake-daemon
IASL=$(command -v iasl)
for program in "$HOSPES_BUILD"/tests/test_*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	name=${program##*/test_}
	ok "$name" timeout 300 "$program" -Otap:-
done
done_testing
