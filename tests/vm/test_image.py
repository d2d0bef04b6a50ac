from __future__ import annotations

import gzip
import lzma
import random
import shutil
import struct
import subprocess
from collections.abc import Callable

import pytest
from vm import image
from vm.errors import NotRunError

CONTENT = random.Random(23).randbytes(5003)
SIZE_BEHIND = struct.pack("<I", len(CONTENT))


def zstd(content: bytes) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("needs zstd")
    return subprocess.run(["zstd", "-cq"], input=content, capture_output=True, check=True).stdout


PACKERS = [gzip.compress, lzma.compress, zstd]


@pytest.mark.parametrize("pack", PACKERS)
def test_vmlinux_of_each_compression(pack: Callable[[bytes], bytes]) -> None:
    payload = pack(CONTENT) + SIZE_BEHIND
    header = bytearray(3 * 512)
    header[0x1F1], header[0x202:0x206] = 2, b"HdrS"
    struct.pack_into("<II", header, 0x248, 7, len(payload))
    assert image.vmlinux(bytes(header) + bytes(7) + payload + b"more") == CONTENT


def test_arm64_image_of_each_wrapping() -> None:
    plain = bytes(56) + b"ARM\x64" + CONTENT
    packed = gzip.compress(plain)
    zboot = b"MZ\0\0zimg" + struct.pack("<II", 64, len(packed)) + bytes(48) + packed + b"more"
    assert image.arm64_image(plain) == image.arm64_image(packed) == image.arm64_image(zboot) == plain


@pytest.mark.parametrize("read", [image.vmlinux, image.arm64_image, image.btf])
def test_image_of_another_format_raises(read: Callable[[bytes], bytes]) -> None:
    with pytest.raises(NotRunError):
        read(CONTENT)


def btf(types: bytes, strings: bytes, header_len: int = 24) -> bytes:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, header_len, 0, len(types), len(types), len(strings))
    return header.ljust(header_len, b"\0") + types + strings


@pytest.mark.parametrize("header_len", [24, 32])
def test_btf_largest_that_fits_is_taken(header_len: int) -> None:
    whole = btf(bytes(160), b"\0int\0", header_len)
    cut_off = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 1 << 20, 1 << 20, 9)
    kernel = CONTENT + cut_off + btf(bytes(16), b"\0") + CONTENT + whole + CONTENT
    assert image.btf(kernel) == whole
