"""Kernel images: the ELF file or the BTF in them, for any compression."""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from typing import Final

from vm.errors import NotRunError

_BTF_HEADER: Final = struct.Struct("<HBBIIIII")
_BTF_START: Final = struct.pack("<HBB", 0xEB9F, 1, 0)  # magic, version, flags


def vmlinux(bzimage: bytes) -> bytes:
    """Return the ELF file in an x86 bzImage (Documentation/arch/x86/boot.rst).

    QEMU boots the ELF file, so that the guest need not unpack it.
    """
    if bzimage[0x202:0x206] != b"HdrS":
        raise NotRunError("the kernel's image is no bzImage")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    begin = (setup_sectors + 1) * 512 + offset
    return unpack(bzimage[begin : begin + length])


def arm64_image(file: bytes) -> bytes:
    """Return the Image in a file that arm64 boots: plain, compressed, or the payload of an EFI program
    (zboot)."""
    if file[4:8] == b"zimg":  # drivers/firmware/efi/libstub/zboot-header.S
        offset, length = struct.unpack_from("<II", file, 8)
        return unpack(file[offset : offset + length])
    return file if file[56:60] == b"ARM\x64" else unpack(file)


def unpack(packed: bytes) -> bytes:
    """Decompress data of the kernel's build, which may have put the size after the data."""
    if packed.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(packed)
    if packed.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(packed)
    if packed.startswith(b"\x28\xb5\x2f\xfd"):
        # zstd fails at the size after the data, when all of the data is written
        done = subprocess.run(["zstd", "-dcq"], input=packed, capture_output=True, check=False)
        if done.stdout:
            return done.stdout
    raise NotRunError(f"a kernel image is packed in an unknown way ({packed[:6].hex()})")


def btf(image: bytes) -> bytes:
    """Return the BTF in an uncompressed kernel image: the largest section with a consistent header
    (Documentation/bpf/btf.rst).
    """
    found = b""
    start = image.find(_BTF_START)
    while start >= 0:
        _, _, _, header_len, type_off, type_len, str_off, str_len = _BTF_HEADER.unpack_from(image, start)
        end = start + header_len + str_off + str_len
        fits = type_off == 0 and type_len % 4 == 0 and str_off >= type_len > 0 and end <= len(image)
        if fits and image[end - 1] == 0 and end - start > len(found):
            found = image[start:end]
        start = image.find(_BTF_START, start + 1)
    if not found:
        raise NotRunError("there is no BTF in the kernel's image")
    return found
