"""The daemon's disk and clock under the harness's hand: builds faults.c, writes the page that it reads."""
import mmap
import os
import pathlib
import struct
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
PAGE = struct.Struct("=qII")  # struct control of faults.c


def build(source, folder):
    """A shared object of one C file, for LD_PRELOAD."""
    path = f"{folder}/lib{pathlib.Path(source).stem}.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-o", path, source, "-ldl"], check=True)
    return path


class Faults:
    """disks: the folders that can be full, in the order of faults.c's bits."""

    def __init__(self, folder, disks):
        self.library = build(HERE / "faults.c", folder)
        self.path, self.disks = folder + "/faults", list(disks)
        with open(self.path, "wb") as f:
            f.truncate(mmap.PAGESIZE)
        with open(self.path, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        self.jump_ms = self.full = 0

    def env(self):
        # the library is no part of the sanitizer's world, and need not be loaded behind it
        asan = os.environ.get("ASAN_OPTIONS", "")
        return {"LD_PRELOAD": self.library, "CHAOS_FAULTS": self.path, "CHAOS_DISKS": ":".join(self.disks),
                "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0:quarantine_size_mb=8:malloc_context_size=8"}

    @property
    def refused(self):
        return PAGE.unpack_from(self.page)[2]

    def fill(self, disk, full):
        bit = 1 << self.disks.index(disk)
        self.full = self.full | bit if full else self.full & ~bit
        struct.pack_into("=I", self.page, 8, self.full)

    def jump(self, ms):
        self.jump_ms = ms
        struct.pack_into("=q", self.page, 0, ms)

    def close(self):
        self.page.close()
