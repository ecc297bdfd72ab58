#!/usr/bin/env python3
"""What the kernel itself says: give a device to an I/O address space, and map memory into it.

usage: vfio_try.py BDF iommufd|type1 [BYTES [IOVA]]

Prints 'ok', or the step that failed and its error: 'open EACCES', 'bind EBUSY', 'attach EPERM',
'map ENOMEM'. Here nothing of hospes takes part, so that what it predicts is compared with the truth.
"""
import ctypes
import errno
import fcntl
import glob
import mmap
import os
import struct
import sys

VFIO = 0x3b64       # _IO(';', 100)
BIND_IOMMUFD, ATTACH_PT = VFIO + 18, VFIO + 19
SET_IOMMU, GROUP_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE = VFIO + 2, VFIO + 3, VFIO + 4, VFIO + 6
MAP_DMA = VFIO + 13
IOAS_ALLOC, IOAS_MAP = 0x3b81, 0x3b85


def step(name, call, *args):
    try:
        return call(*args)
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e.errno))
        sys.exit(1)


def memory(length):
    m = mmap.mmap(-1, length)
    return m, ctypes.addressof(ctypes.c_char.from_buffer(m))


def iommufd(bdf, length, iova):
    found = glob.glob(f"/sys/bus/pci/devices/{bdf}/vfio-dev/vfio*")
    if not found:
        sys.exit(print("open ENOENT") or 1)
    dev = step("open", os.open, "/dev/vfio/devices/" + os.path.basename(found[0]), os.O_RDWR)
    fd = step("open", os.open, "/dev/iommu", os.O_RDWR)
    step("bind", fcntl.ioctl, dev, BIND_IOMMUFD, bytearray(struct.pack("IIiI", 16, 0, fd, 0)))
    ioas = bytearray(struct.pack("III", 12, 0, 0))
    step("ioas", fcntl.ioctl, fd, IOAS_ALLOC, ioas)
    ioas = struct.unpack("III", ioas)[2]
    step("attach", fcntl.ioctl, dev, ATTACH_PT, bytearray(struct.pack("III", 12, 0, ioas)))
    if length:
        keep, va = memory(length)
        step("map", fcntl.ioctl, fd, IOAS_MAP,
             bytearray(struct.pack("IIIIQQQ", 40, 7, ioas, 0, va, length, iova)))


def type1(bdf, length, iova):
    group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{bdf}/iommu_group"))
    container = step("open", os.open, "/dev/vfio/vfio", os.O_RDWR)
    fd = step("open", os.open, f"/dev/vfio/{group}", os.O_RDWR)
    status = bytearray(struct.pack("II", 8, 0))
    fcntl.ioctl(fd, GROUP_STATUS, status)
    if not struct.unpack("II", status)[1] & 1:
        sys.exit(print("viable EPERM") or 1)
    step("container", fcntl.ioctl, fd, GROUP_SET_CONTAINER, struct.pack("i", container))
    step("attach", fcntl.ioctl, container, SET_IOMMU, 3)
    if length:
        keep, va = memory(length)
        step("map", fcntl.ioctl, container, MAP_DMA,
             bytearray(struct.pack("IIQQQ", 32, 3, va, iova, length)))


bdf, kind = sys.argv[1:3]
length = int(sys.argv[3], 0) if len(sys.argv) > 3 else 0
iova = int(sys.argv[4], 0) if len(sys.argv) > 4 else 0x1000000
(iommufd if kind == "iommufd" else type1)(bdf, length, iova)
print("ok")
