# The slot of a device may be anything that two digits can say.
s/ slot > 0x1f \|\|/ slot > 0xff ||/
