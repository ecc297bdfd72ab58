# An answer may have taken no time at all.
s/ a->seconds > 0 && / a->seconds >= 0 \&\& /
