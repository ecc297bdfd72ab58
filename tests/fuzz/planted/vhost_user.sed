# An answer may be shorter than it has to be.
s/header\.bytes != bytes\)/header.bytes > bytes)/
