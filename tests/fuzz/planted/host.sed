# A capability may begin behind the end of what was read.
s/at \+ 2 > MIN\(bytes, 256u\)/false/
