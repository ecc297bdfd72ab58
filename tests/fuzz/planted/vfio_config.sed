# A capability may say that it is longer than config space.
s/ \|\| bytes > room\)/)/
