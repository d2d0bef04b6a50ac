from __future__ import annotations

import pytest

from tracer.capture import doctor
from tracer.errors import TracerError
from tracer.kernel.doctor import State


def no_bcc() -> None:
    raise TracerError("BCC is not installed; install the distribution's: apt-get install python3-bpfcc")


def test_without_bcc_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_bcc", no_bcc)
    bcc, programs = doctor.examine(may_load=True)
    assert (bcc.state, bcc.prevents_recording) == (State.MISSING, True)
    assert "python3-bpfcc" in bcc.detail
    assert programs.state is State.UNKNOWN


def test_a_kernel_that_refuses_a_program_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TracerError(
            "the kernel refuses the BPF program drain: Permission denied; see memcg-tracer doctor"
        )

    monkeypatch.setattr(doctor, "Programs", refuse)
    check = doctor.trial()
    assert (check.state, check.prevents_recording) == (State.MISSING, True)
    assert check.detail == "the kernel refuses the BPF program drain: Permission denied"


@pytest.mark.kernel
@pytest.mark.vm
def test_every_program_loads_on_this_kernel() -> None:
    bcc, programs = doctor.examine(may_load=True)
    assert bcc.state is State.OK
    assert programs.state is State.OK, programs.detail
