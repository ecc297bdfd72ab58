"""libhospes for the scripts here: a machine as an object, each call an exception when it fails."""

import ctypes
import errno
import json
import os

RUNNING, PAUSED, STOPPED = 1, 2, 3   # enum hospes_state
POWERED_OFF = 1                      # enum hospes_outcome
ADDED, REMOVED, KEPT = 9, 10, 11     # enum hospes_event_type
FORCE = 1                            # HOSPES_REMOVE_FORCE
FD_KEYS = {"fd", "iommufd", "vhost_fd", "in", "out"}


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("text", ctypes.c_char * 768)]


class Event(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("type", ctypes.c_int), ("value", ctypes.c_int),
                ("text", ctypes.c_char_p), ("device", ctypes.c_char_p)]


EventFn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(Event))


class OpenOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("iommu", ctypes.c_char_p), ("has_iommufd", ctypes.c_int)]


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("flags", ctypes.c_uint), ("log", ctypes.c_void_p),
                ("log_opaque", ctypes.c_void_p), ("log_level", ctypes.c_int),
                ("event", ctypes.c_void_p), ("event_opaque", ctypes.c_void_p),
                ("kvm_fd", ctypes.c_int)]


lib = ctypes.CDLL(os.environ["HOSPES_BUILD"] + "/machine/libhospes.so.0")
lib.hospes_vm_destroy.restype = None
lib.hospes_free.restype = None


class VM:
    """Created from a document; it runs in a thread of the library, which calls event(type, value, text,
    device's id or None)."""

    def __init__(self, document, event=None):
        self.vm = ctypes.c_void_p()
        text = json.dumps({"sandbox": "strict", **document}).encode()
        options = Options(size=ctypes.sizeof(Options), flags=1)
        if event:
            self.event = EventFn(lambda _, e: event(
                e[0].type, e[0].value, e[0].text.decode(), e[0].device and e[0].device.decode()))
            options.event = ctypes.cast(self.event, ctypes.c_void_p)
        self.error = Error()
        self.need(lib.hospes_vm_create(ctypes.byref(self.vm), text, ctypes.c_size_t(len(text)),
                                       ctypes.byref(options), ctypes.byref(self.error)), "create")

    def need(self, rc, what):
        if rc < 0:
            raise RuntimeError(f"{what}: {self.error.text.decode()}")

    def call(self, verb):
        """start, pause, resume, shutdown, reset, stop"""
        self.need(getattr(lib, "hospes_vm_" + verb)(self.vm, ctypes.byref(self.error)), verb)

    def text(self, rc, out, what):
        """A JSON document that a call has given out."""
        self.need(rc, what)
        text = ctypes.string_at(out)
        lib.hospes_free(out)
        return json.loads(text)

    def status(self):
        out = ctypes.c_void_p()
        return self.text(lib.hospes_vm_status(self.vm, ctypes.byref(out), ctypes.byref(self.error)),
                         out, "status")

    def add(self, kind, device):
        """What the status says of it. This thread opens it, since the machine's own is confined."""
        iommu = self.status()["iommu"]
        options = OpenOptions(ctypes.sizeof(OpenOptions), iommu["backend"].encode(), iommu["iommufd"])
        out, text = ctypes.c_void_p(), json.dumps({kind: device}).encode()
        fds, n = (ctypes.c_int * 8)(), ctypes.c_uint()
        opened = self.text(lib.hospes_device_open(
            text, ctypes.c_size_t(len(text)), ctypes.byref(options), ctypes.byref(out), fds,
            ctypes.byref(n), ctypes.byref(self.error)), out, f"open {kind}")
        for key in FD_KEYS & set(opened[kind]):
            opened[kind][key] = fds[opened[kind][key]]
        text = json.dumps(opened).encode()
        try:
            return self.text(lib.hospes_vm_device_add(
                self.vm, text, ctypes.c_size_t(len(text)), ctypes.byref(out),
                ctypes.byref(self.error)), out, f"add {kind}")
        finally:
            for fd in fds[:n.value]:
                os.close(fd)

    def remove(self, name, timeout_ms=60000, flags=0):
        self.need(lib.hospes_vm_device_remove(self.vm, name.encode(), timeout_ms, flags,
                                              ctypes.byref(self.error)), f"remove {name}")

    def wait(self, seconds):
        """Until it has stopped; False: not in this time."""
        rc = lib.hospes_vm_wait(self.vm, int(seconds * 1000))
        if rc not in (0, -errno.ETIMEDOUT):
            raise RuntimeError(f"wait: {os.strerror(-rc)}")
        return rc == 0

    def state(self):
        return lib.hospes_vm_state(self.vm)

    def outcome(self):
        return lib.hospes_vm_outcome(self.vm)

    def destroy(self):
        lib.hospes_vm_destroy(self.vm)
        self.vm = ctypes.c_void_p()
