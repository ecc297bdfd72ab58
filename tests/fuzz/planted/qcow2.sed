# A name may be shorter than the image says.
s/pread\(fd, ret->backing, bytes, \(off_t\)offset\) != \(ssize_t\)bytes/pread(fd, ret->backing, bytes, (off_t)offset) < 0/
s/strlen\(ret->backing\) != bytes\)/strlen(ret->backing) > bytes)/
