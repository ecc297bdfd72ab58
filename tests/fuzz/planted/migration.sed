# The source's last word counts before the target has loaded anything.
s/\[WIRE_GO\] = IN\(LOADED\)/[WIRE_GO] = IN(WHOLE) | IN(LOADED)/
