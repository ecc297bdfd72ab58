# Control characters are let through.
s/< ' ' \|\|/< '\\t' ||/
