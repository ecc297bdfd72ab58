#!/bin/bash
# testhost: --cpus 2 --timeout 1200 long=6
# Devices come to a Linux guest while it runs, are used, and leave it: with its consent, and pulled out. Rounds
# of all kinds leave nothing behind.
. "$(dirname "$0")/../lib.sh"
truncate -s 64M "$TMP/data.img"
: >"$TMP/console.log"
dialogue "$TMP" "$(dirname "$0")/hotplug.py" "$(times 2 84)" "${HOSPES_TEST_SEED:-$RANDOM}"
done_testing
