"""Symbols of Rust. The names are those that c++filt of binutils prints, without the hashes of crates and the
types of constants."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.views.rust_names import implemented, name_of

NAMES = {
    "_RNvCs1_2rs9load_rows": "rs::load_rows",
    "_RNCNCNvCs1_2rs4mains0_00B5_": "rs::main::{closure#2}::{closure#0}",
    "_RINvCs1_2rs3genThuEKb1_Kan5_EB2_": "rs::gen::<(u8, ()), true, -5>",
    "_RINvNtCs1_2rsu9gre_6ka8iu8luft_loaReEB4_": "rs::größe::läuft::<&str>",
    "_RINvXCs1_2rsINtB3_2SqKj3_ReENtB3_5Shape4eachNCNvB3_4main0EB3_": (
        "<rs::Sq<3, &str> as rs::Shape>::each::<rs::main::{closure#0}>"
    ),
    "_RNvMs1_NtCs2_3std6threadINtB5_9JoinInnerjE4joinCs1_2rs": "<std::thread::JoinInner<usize>>::join",
    "_RNSNvYNCNvCs1_2rs4main0INtNtCs3_4core3ops6FnOnceTlEE9call_once6vtableB6_.llvm.81930951": (
        "<rs::main::{closure#0} as core::ops::FnOnce<(i32,)>>::call_once::{shim:vtable#0}"
    ),
    "_RINvNtCs3_4core3ptr13drop_in_placeDINtNtB4_3ops6FnOnceuEp6OutputuNtNtB4_6marker4SendEL_ECs1_2rs": (
        "core::ptr::drop_in_place::<dyn core::ops::FnOnce<(), Output = ()> + core::marker::Send>"
    ),
    "_RINvCs1_2rs2fpFG1_RL1_eRL0_eEL0_eEB2_": None,  # a type cannot begin with a lifetime
    "_RINvCs1_2rs2fpFG0_RL1_eRL0_eERL1_eEB2_": "rs::fp::<for<'a, 'b> fn(&'a str, &'b str) -> &'a str>",
    "_RINvCs1_2rs2fpPhOTlyEFKClElFUEuAtj4_SbzEB2_": (
        'rs::fp::<*const u8, *mut (i32, u64), extern "C" fn(i32) -> i32, unsafe fn(), [u16; 4], [bool], !>'
    ),
}


@pytest.mark.parametrize(("symbol", "name"), NAMES.items())
def test_symbol_is_read_as_it_is_written(symbol: str, name: str | None) -> None:
    assert name_of(symbol) == name


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt (binutils)")
def test_names_are_those_of_binutils() -> None:
    symbols = [symbol for symbol, name in NAMES.items() if name is not None]
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    for symbol, printed in zip(symbols, done.stdout.splitlines(), strict=True):
        without = re.sub(r"\[[0-9a-f]+\](?=::)|(?<=[0-9e]): (?:bool|i8|usize)\b", "", printed)
        assert name_of(symbol) == without


def test_older_symbols_have_no_hash_and_no_escapes() -> None:
    symbol = "_$LT$rs..Store$u20$as$u20$core..clone..Clone$GT$::clone::h1da5c3929bbd3b48"
    assert name_of(symbol) == "<rs::Store as core::clone::Clone>::clone"


@pytest.mark.parametrize(
    "symbol",
    [
        "main",
        "_R",
        "_RNvC2rs",  # cut
        "_RNvC2rs9load_rowsX",
        "_RNvB_4main",  # refers to itself
        "_RNvC99999999a4main",
        "_RNvC2rsu4_zz9",  # no Punycode
        f"_RMC1a{'T' * 5000}",
        f"_RMC1a{'R' * 5000}u",
        "_RC1ä",
    ],
)
def test_damaged_symbol_has_no_name(symbol: str) -> None:
    assert name_of(symbol) is None


def test_references_that_double_the_name_again_and_again_end() -> None:
    place, symbol = len("IC1a"), "IC1aTuuE"
    for _ in range(40):
        again = f"B{_base62(place)}"
        place = len(symbol)
        symbol += f"T{again}{again}E"
    assert name_of(f"_R{symbol}E") is None


def _base62(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if number == 0:
        return "_"
    number, text = number - 1, ""
    while number >= 62:
        number, last = divmod(number, 62)
        text = digits[last] + text
    return f"{digits[number]}{text}_"


@given(st.text(st.sampled_from("BCDEFIKLMNQRSTXYabcehijlpsuvz0123456789_"), max_size=60))
def test_any_symbol_has_a_short_name_or_none(rest: str) -> None:
    name = name_of(f"_RNvC{rest}")
    assert name is None or 0 < len(name) <= 1 << 14


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("<rs::Row>::load", ("rs::Row",)),
        ("<rs::Row as rs::Load>::load", ("rs::Row", "rs::Load")),
        ("<fn() -> rs::Row as rs::Load<u8>>::load", ("fn() -> rs::Row", "rs::Load<u8>")),
        ("<a::Vec<<rs::Row as rs::Load>::Of>>::push", ("a::Vec<<rs::Row as rs::Load>::Of>",)),
        ("<cut", ("<cut",)),
    ],
)
def test_type_and_trait_of_a_function(name: str, parts: tuple[str, ...]) -> None:
    assert implemented(name) == parts
