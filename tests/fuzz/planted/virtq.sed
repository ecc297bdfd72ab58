# The last index that an indirect table has not is let through.
s/d\.next >= entries/d.next > entries/
