"""The file stands alone: one policy, two elements of script, no address, and data that cannot leave its element."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest
from explored import dense, mixture
from hypothesis import given
from hypothesis import strategies as st

from advisor.report.explorer.pack import pack
from advisor.report.explorer.page import bundle, embedded, page


@pytest.fixture(scope="module")
def text() -> str:
    return page(dense())


def test_the_policy_allows_this_program_and_style_and_no_request(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    for element in ("style", 'script type="module"'):
        body = text.split(f"<{element}>", 1)[1].split(f"</{element.split()[0]}>", 1)[0]
        assert f"sha256-{b64encode(sha256(body.encode()).digest()).decode()}" in policy[1]


def test_nothing_is_loaded_from_elsewhere(text: str) -> None:
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b", text)
    assert not re.search(r"\bsrc=|@import|url\(", text.split("<style>")[0])
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "fetch(",
        "XMLHttpRequest",
    ):
        assert word not in text, word


def test_a_page_is_small(text: str) -> None:
    assert len(text.encode()) < 600_000
    assert len(page(mixture()).encode()) < 600_000


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_data_cannot_end_its_element(name: str) -> None:
    found = embedded({"name": name})
    assert not set("<>&\u2028\u2029") & set(found)
    assert json.loads(found) == {"name": name}


def test_marks_of_the_template_in_a_name_stay_a_name() -> None:
    name = "{{PROGRAM}} {{DATA}} </title><script>"
    text = page(replace(dense(), asked=replace(dense().asked, model=name, machine=name)))
    assert text.count("<script") == 2
    assert "<title>{{PROGRAM}} {{DATA}} &lt;/title&gt;&lt;script&gt; on" in text


def test_every_module_is_in_the_program_once() -> None:
    folder = files("advisor.report.explorer")
    names = [Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".js")]
    program = bundle("main")
    for name in names:
        assert program.count(f"const ${name} = (() => {{") == 1, name
    assert not re.search(r"^(import|export) ", program, re.MULTILINE)


def test_data_and_types_have_the_same_names() -> None:
    types = files("advisor.report.explorer").joinpath("data.js").read_text(encoding="utf-8")
    data = pack(dense())
    for value in (
        data,
        data["asked"],
        data["plans"][0],
        data["ladder"],
        data["ladder"]["rungs"][0],
        data["variants"][0],
        data["curves"][0],
        data["machine"],
    ):
        missing = [key for key in value if not re.search(rf"\b{key}\b", types)]
        assert not missing
