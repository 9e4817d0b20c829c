"""The rehearsal names what fails and goes on."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from runner import fused, rehearse  # noqa: E402
from runner.rehearse import Check, WrongError, main  # noqa: E402

CPU = torch.device("cpu")
# torch's own, when its compiler is imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def own_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dry run changes the backend of its own process."""
    monkeypatch.setattr(fused, "BACKEND", "eager")


def test_a_dry_run_checks_all_that_a_cpu_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu"]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert verdict.endswith("ready to measure")
    states = {line[10:27].strip(): line[:9].strip() for line in lines}
    assert {name for name, state in states.items() if state == "ok"} == {
        "modules", "device", "clock", "matrix product", "fp8 product", "compiled layer", "experts", "process group",
    }  # fmt: skip
    assert {name for name, state in states.items() if state == "left out"} == {"decode attention", "captured graph"}


def test_what_fails_is_named_and_the_rest_still_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: Any) -> str:
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")

    def wrong(_: Any) -> str:
        raise WrongError("differs from the reference by 0.5, more than 0.01")

    monkeypatch.setattr(rehearse, "checks", lambda _: [("first", broken), ("second", wrong), ("third", lambda _: "off by 0")])
    found = rehearse.rehearse(CPU)
    assert [check.state for check in found] == ["failed", "failed", "ok"]
    assert found[0].words == "CUDA error: no kernel image is available for execution on the device"
    assert isinstance(found[0], Check)
    assert main(["--device", "cpu"]) == 3
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith("failed: first, second; what comes after a failure may fail because of it")
    )


def test_a_result_that_is_wrong_or_no_number_fails() -> None:
    one = torch.ones(4)
    assert rehearse._close(one, one, 1e-6) == "off by 0"
    with pytest.raises(WrongError, match=r"differs from the reference by 0\.5"):
        rehearse._close(one * 1.5, one, 1e-2)
    with pytest.raises(WrongError, match="nan"):
        rehearse._close(one * torch.nan, one, 1e-2)


def test_missing_modules_lead_to_the_list_of_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "NEEDED", ("numpy", "no_such_module"))
    with pytest.raises(WrongError, match=r"not installed: no_such_module; `python -m runner\.wheels` lists what to bring"):
        rehearse.modules(CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_dry_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 3
    assert "sees no GPU: install a build for the driver, or use --device cpu." in capsys.readouterr().err


@pytest.mark.gpu
def test_a_gpu_passes_in_a_minute() -> None:
    found = rehearse.rehearse(torch.device("cuda", 0))
    assert [(check.name, check.words) for check in found if check.state == "failed"] == []
    assert sum(check.took_s for check in found) < rehearse.LIMIT_S
