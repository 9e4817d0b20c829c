"""The explorer in a real browser: every control is moved, and the numbers shown are those of the command line."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from explored import asked, dense, dense_question, mixture, screened

from advisor.api.explore import write_page
from advisor.api.question import question
from advisor.search.ceiling import with_ceiling
from advisor.serving.predict import Predictor
from advisor.specs.exploration import Exploration
from advisor.specs.prediction import Prediction
from advisor.units import show, show_count

NEAR = 0.02  # of a figure: what reading between computed points may miss it by
H100S = {"gpu": "h100-80g-sxm", "gpus": 8}
VIEWS = ("plan", "users", "why", "whatif", "where", "formulas")


@pytest.fixture(scope="module")
def dense_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("explorer") / "dense.html"
    write_page(dense(), file)
    return file


@pytest.fixture(scope="module")
def mixture_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("explorer") / "mixture.html"
    write_page(mixture(), file)
    return file


@pytest.fixture
def page(open_file: Callable[..., Any], dense_file: Path) -> Any:
    return open_file(dense_file)


def near(shown: float, meant: float, *, within: float = NEAR) -> bool:
    return abs(shown - meant) <= within * abs(meant)


def assert_same(shown: dict[str, float], meant: Prediction) -> None:
    for name, estimate in (("ttft", meant.ttft_s), ("tpot", meant.tpot_s), ("rate", meant.output_tokens_per_s)):
        assert near(shown[name], estimate.value), (name, shown[name], estimate.value)


def figures(opened: Any, within: str) -> dict[str, float]:
    return {name: opened.figure(name, within=within) for name in ("ttft", "tpot", "rate")}


def move(opened: Any, control: str, presses: int = 1, key: str = "ArrowRight") -> str:
    """Moves a slider by key presses; what its label then says."""
    opened.page.focus(f"#{control}")
    for _ in range(presses):
        opened.page.keyboard.press(key)
    return str(opened.page.locator(f"#{control}-shown").inner_text())


def state(opened: Any, name: str) -> str:
    return str(opened.page.evaluate(f"new URLSearchParams(location.hash.slice(1)).get('{name}')"))


# Which plan?


def test_the_plans_are_those_of_recommend(page: Any) -> None:
    page.go()
    advice = asked("recommend", "70b", **H100S)
    assert page.page.locator("#recommended").inner_text() == "tp=4,dp=2"
    shown = page.page.locator("#table-plans tbody tr").count()
    best = {}
    for choice in advice["choices"]:
        plan = choice["plan"]
        best.setdefault((plan["tp"], plan["pp"]), choice)
    assert shown >= len(best)
    for (tp, pp), choice in best.items():
        degrees = {"tp": tp, "pp": pp, "dp": choice["plan"]["dp"]}
        label = ",".join(f"{axis}={n}" for axis, n in degrees.items() if n > 1)
        row = page.row("plans", label)
        for name, key in (("ttft", "ttft_s"), ("tpot", "tpot_s"), ("rate", "output_tokens_per_s")):
            assert near(row[name], choice[key]["value"], within=1e-5), (label, name)
        assert near(row["usd"], choice["usd_per_million_tokens"], within=1e-4)


def test_figures_are_printed_as_the_command_line_prints_them(page: Any) -> None:
    page.go()
    first = asked("recommend", "70b", **H100S)["choices"][0]
    text = page.page.locator("#card [data-figure='tpot']").inner_text()
    estimate = first["tpot_s"]
    assert text == f"{show(estimate['value'], 's')} ({show(estimate['low'], 's')} to {show(estimate['high'], 's')})"
    rate = first["output_tokens_per_s"]
    assert page.page.locator("#card [data-figure='rate']").inner_text() == (
        f"{show_count(rate['value'])} ({show_count(rate['low'])} to {show_count(rate['high'])})"
    )


@pytest.mark.parametrize(
    ("field", "text", "option"),
    [("tpot", "30ms", {"ttft": "2s", "tpot": "30ms"}), ("ttft", "260ms", {"ttft": "260ms", "tpot": "50ms"})],
)
def test_a_limit_that_is_written_moves_the_plans(page: Any, field: str, text: str, option: dict[str, str]) -> None:
    page.go()
    page.page.fill(f"#{field}", text)
    check_limits(page, option)


def check_limits(page: Any, option: dict[str, str]) -> None:
    advice = asked("recommend", "70b", **H100S, **option)
    for label, tp in (("tp=8", 8), ("tp=4,dp=2", 4)):
        choice = next(c for c in advice["choices"] if c["plan"]["tp"] == tp and c["plan"]["tp"] * c["plan"]["dp"] == 8)
        row = page.row("plans", label)
        assert near(row["rate"], choice["output_tokens_per_s"]["value"], within=0.03)
        assert near(row["tpot"], choice["tpot_s"]["value"], within=0.03)
    best = max((c for c in advice["choices"] if c["within_limits"]), key=lambda c: c["output_tokens_per_s"]["value"])
    assert f"tp={best['plan']['tp']}" in page.page.locator("#best").get_attribute("data-plan")


def test_a_limit_is_dragged_with_the_mouse_and_moved_with_keys(page: Any) -> None:
    page.go(x="tpot")
    line = page.page.locator("[data-key='limit-tpot']")
    before = float(line.get_attribute("aria-valuenow"))
    page.page.locator("#figure-plans").scroll_into_view_if_needed()
    box = line.locator("line").first.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] - 80, box["y"] + 20, steps=4)
    page.page.mouse.up()
    dragged = float(page.page.locator("[data-key='limit-tpot']").get_attribute("aria-valuenow"))
    assert dragged < before * 0.9
    page.page.locator("[data-key='limit-tpot']").focus()
    page.page.keyboard.press("ArrowRight")
    assert page.page.evaluate("document.activeElement.dataset.key") == "limit-tpot"
    moved = float(page.page.locator("[data-key='limit-tpot']").get_attribute("aria-valuenow"))
    assert moved == pytest.approx(dragged * 1.05, rel=0.01)
    limit = page.page.locator("#tpot").input_value()
    assert float(limit) == pytest.approx(moved)
    check_limits(page, {"ttft": "2s", "tpot": f"{float(limit) * 1000}ms"})


@pytest.mark.parametrize("axis", ["latency", "ttft", "tpot"])
def test_the_axis_shows_the_figure_it_names(page: Any, axis: str) -> None:
    page.go()
    page.page.select_option("#x", axis)
    first = asked("recommend", "70b", **H100S)["choices"][0]
    title = page.page.locator("[data-key='dot-tp=4,dp=2'] title").text_content()
    assert title.startswith(f"tp=4,dp=2: {show(first[f'{axis}_s']['value'], 's')}, ")


def test_the_load_slider_shows_what_the_formula_says(page: Any) -> None:
    page.go()
    users = int(move(page, "users", 9).replace(",", ""))
    assert state(page, "load") == "users"
    for label in ("tp=8", "tp=4,dp=2", "tp=2,pp=2,dp=2"):
        row = page.row("plans", label)
        meant = screened("70b", plan=label, users=users, **H100S)
        assert_same(row, meant)
        assert meant.usd_per_million_tokens is not None
        assert near(row["usd"], meant.usd_per_million_tokens)
    page.page.select_option("#load", "most")
    assert near(
        page.row("plans", "tp=8")["rate"],
        asked("recommend", "70b", **H100S)["choices"][1]["output_tokens_per_s"]["value"],
        within=1e-4,
    )


def test_a_plan_is_selected_by_its_row_and_by_its_point(page: Any) -> None:
    page.go()
    page.page.click("[data-key='row-tp=8']")
    assert page.page.locator("#card h2").inner_text().startswith("tp=8 on 8")
    page.page.locator("[data-key='dot-tp=4,dp=2'] .reach").click(force=True)
    assert page.page.locator("#card h2").inner_text().startswith("tp=4,dp=2 on 8")


def test_plans_that_cannot_run_stand_there_with_the_reason(page: Any) -> None:
    page.go()
    advice = asked("recommend", "70b", **H100S)
    rows = page.page.locator("#table-rejected tbody tr")
    assert rows.count() == len(advice["rejected"])
    assert rows.first.get_attribute("class") == "faded"
    assert advice["rejected"][0]["reason"] in rows.first.inner_text()


def test_the_question_s_own_load_is_shown_exactly(open_file: Callable[..., Any], mixture_file: Path) -> None:
    opened = open_file(mixture_file)
    opened.go()
    first = asked("recommend", "mixtral", gpu="l40s", gpus=4, users=32)["choices"][0]
    label = opened.page.locator("#recommended").inner_text()
    assert near(opened.row("plans", label)["ttft"], first["ttft_s"]["value"], within=1e-5)
    tied = opened.page.locator("#table-plans tbody tr", has_text="cannot be told from the best").count()
    assert tied == sum(explored.tied for explored in mixture().explored) > 1


# How many users?


def test_users_view(page: Any) -> None:
    page.go(view="users")
    page.page.select_option("#plan", "tp=8")
    users = int(move(page, "users", 6, "ArrowLeft").replace(",", ""))
    meant = screened("70b", plan="tp=8", users=users, **H100S)
    assert_same(figures(page, "#card"), meant)
    for name in ("ttft", "tpot", "rate"):
        text = page.page.locator(f"#card [data-figure='{name}']").inner_text()
        assert " to " in text
    row = page.row("users", "tp=8")
    assert near(row["running"], meant.sequences)
    assert row["waiting"] == pytest.approx(users - row["running"], abs=0.01 * users)
    breaks = page.page.locator("#table-users tbody tr", has_text="tp=8").first.inner_text()
    expected = asked("recommend", "70b", **H100S, confidence=0.5)["choices"]
    most = next(choice for choice in expected if choice["plan"]["tp"] == 8)
    assert show_count(most["requests_per_s"]["value"] * most["latency_s"]["value"]) in breaks
    page.page.fill("#tpot", "20ms")
    assert "misses TPOT" in page.page.locator("#card").inner_text() or users < 60


# Why?


@pytest.mark.parametrize("rung", ["tp=2", "tp=8"])
def test_why_view_is_explain(page: Any, rung: str) -> None:
    page.go(view="why")
    batch = int(move(page, "batch", 2, "ArrowLeft"))
    meant = asked("explain", "70b", **H100S, plan=rung, batch=batch)
    decode = meant["prediction"]["decode"]
    row = page.row("steps", rung)
    assert near(row["step"], decode["total_s"], within=1e-4)
    for part in decode["parts"]:
        assert near(row[part["name"]], part["amount"], within=1e-4), part
    memory = page.row("memory", rung)
    held = meant["prediction"]["memory"]
    assert near(memory["weights"], held["weights_bytes"], within=1e-4)
    assert near(memory["kv"], held["kv_bytes"], within=1e-4)
    tokens = float(page.page.locator("#context").input_value())
    assert near(memory["used"], held["kv_bytes_per_token"] * tokens * batch, within=1e-4)


def test_prefill_context_and_the_followed_split(page: Any) -> None:
    page.go(view="why")
    page.page.select_option("#phase", "prefill")
    meant = asked("explain", "70b", **H100S, plan="tp=4")
    assert near(page.row("steps", "tp=4")["step"], meant["prediction"]["prefill"]["total_s"], within=1e-4)
    page.page.select_option("#context", "16384")
    per_token = meant["prediction"]["memory"]["kv_bytes_per_token"]
    assert near(page.row("memory", "tp=4")["sequence"], per_token * 16384, within=1e-3)
    page.page.select_option("#rung", "tp=8")
    assert "tp=8" in page.page.locator("#figure-roofline .title").inner_text()
    assert "does not fit" in page.page.locator("#figure-ladder").inner_text()


# What if?


def whatif(page: Any, **state: object) -> None:
    page.go(view="whatif", **state)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"gpu": "h200-141g-sxm"}, {"gpu": "h200-141g-sxm"}),
        ({"weights": "fp8"}, {"dtype": "fp8"}),
        ({"input": "16384"}, {"input_tokens": 16384}),
        ({"tp": "2", "dp": "4", "weights": "fp8"}, {"dtype": "fp8"}),
        ({"tp": "4", "pp": "2", "dp": "1"}, {}),
    ],
)
def test_a_change_is_answered_as_by_estimate(page: Any, change: dict[str, str], options: dict[str, object]) -> None:
    whatif(page, users=48)
    for name in ("gpu", "weights", "input"):
        if name in change:
            page.page.select_option(f"#{name}", change[name])
    for name in ("tp", "pp", "dp"):
        if name in change:
            page.page.focus(f"#{name}")
            page.page.keyboard.press("Home")
            while page.page.locator(f"#{name}-shown").inner_text() != change[name]:
                page.page.keyboard.press("ArrowRight")
    plan = ",".join(f"{axis}={page.page.locator(f'#{axis}-shown').inner_text()}" for axis in ("tp", "pp", "dp"))
    meant = screened("70b", plan=plan, users=48, **{**H100S, **options})
    assert_same(figures(page, "#whatif"), meant)
    assert near(page.figure("usd", within="#whatif"), meant.usd_per_million_tokens)


def test_a_price_and_a_load_change_the_price_of_a_token(page: Any) -> None:
    whatif(page)
    users = int(move(page, "users", 5).replace(",", ""))
    meant = screened("70b", plan="tp=4,dp=2", users=users, **H100S)
    page.page.fill("#price", "4")
    assert near(page.figure("usd", within="#whatif"), 4 * 8 / 3600 / meant.output_tokens_per_s.value * 1e6)
    page.page.fill("#price", "cheap")
    assert page.page.locator("#price").get_attribute("aria-invalid") == "true"


def test_what_does_not_fit_says_by_how_much_and_the_mouse_picks_another(page: Any) -> None:
    whatif(page, tp=1, dp=1)
    assert re.search(r"needs 1\d\d GiB of 79.2 GiB", page.page.locator("#whatif").inner_text())
    page.page.click("[data-key='row-tp=8']")
    assert page.page.locator("#whatif").get_attribute("data-state") == "ok"
    assert page.page.locator("#tp-shown").inner_text() == "8"
    page.page.select_option("#input", "16384")
    page.page.select_option("#gpu", "h200-141g-sxm")
    assert page.page.locator("#whatif").get_attribute("data-state") == "uncomputed"
    page.page.click("#whatif button >> nth=0")
    assert page.page.locator("#whatif").get_attribute("data-state") == "ok"


def test_experts_are_a_choice_of_their_own(open_file: Callable[..., Any], mixture_file: Path) -> None:
    opened = open_file(mixture_file)
    opened.go(view="whatif", tp=4, pp=1, dp=1, users=32)
    opened.page.select_option("#kind", "ep=4")
    assert_same(figures(opened, "#whatif"), screened("mixtral", gpu="l40s", gpus=4, users=32, plan="tp=4,ep=4"))


# Where?


def test_where_view_is_the_assignment(page: Any) -> None:
    page.go(view="where")
    page.page.select_option("#plan", "tp=2,pp=2,dp=2")
    meant = asked("explain", "70b", **H100S, plan="tp=2,pp=2,dp=2")
    rows = [row.split() for row in page.page.locator("#table-seats tbody tr").all_inner_texts()]
    assert [[int(x) for x in row[:5]] for row in rows] == [
        [seat["rank"], seat["gpu"], seat["replica"], seat["stage"], seat["tp_rank"]] for seat in meant["assignment"]
    ]
    groups = page.page.locator("#table-groups tbody").inner_text()
    assert all(", ".join(map(str, group)) in groups for group in meant["groups"]["tp"])
    colours = {}
    for by in ("replica", "stage", "tp"):
        page.page.select_option("#colour", by)
        colours[by] = page.page.locator(".gpu rect").evaluate_all("boxes => boxes.map((b) => b.getAttribute('class'))")
    assert [len(set(colours[by])) for by in ("replica", "stage", "tp")] == [2, 2, 4]
    assert "NVSwitch" in page.page.locator(".legend").inner_text()


# Formulas


def test_a_figure_opens_its_equation(page: Any) -> None:
    page.go()
    first = asked("recommend", "70b", **H100S)["choices"][0]
    for name, text in (("latency", show(first["latency_s"]["value"], "s")), ("usd", show_count(first["usd_per_million_tokens"]))):
        page.page.click(f"[data-key='formula-{name}']")
        dialog = page.page.locator("dialog")
        assert text in dialog.locator(".result").inner_text()
        page.page.keyboard.press("Escape")
        assert page.page.locator("dialog").count() == 0
        assert page.page.evaluate("document.activeElement.dataset.key") == f"formula-{name}"
    page.go(view="formulas")
    assert page.page.locator(".formula").count() >= 10


# The page itself


def test_500_points_between_those_computed(page: Any) -> None:
    """The page's own interpolation, at random loads of random plans and variants, against the model."""
    draw = random.Random(14)
    asked_ = dense_question()
    exploration = dense()
    problems: dict[tuple[str, str, float], Any] = {}
    page.go(view="users")
    misses = []
    for n in range(500):
        users = max(1, round(exploration.most_users ** draw.random()))
        if n % 2:
            plan = draw.choice(exploration.explored).prediction.plan
            problem, calibration = asked_.problem, asked_.calibration
            label = page.page.evaluate("null") or plan
            goto = {"view": "users", "plan": short_label(plan), "users": users}
        else:
            variant = draw.choice(exploration.variants)
            found = draw.choice([p for p in variant.plans if p.curve is not None])
            plan, label = found.plan, found.plan
            key = (variant.gpu, variant.weight_format, variant.input_tokens)
            if key not in problems:
                dtype = "" if variant.weight_format == exploration.variants[0].weight_format else variant.weight_format
                problems[key] = question(
                    model="70b",
                    gpu=variant.gpu,
                    gpus=8,
                    dtype=dtype,
                    input_tokens=round(variant.input_tokens),
                    output_tokens=512,
                    online=False,
                )
            problem, calibration = problems[key].problem, problems[key].calibration
            goto = {
                "view": "whatif", "gpu": variant.gpu, "weights": variant.weight_format, "input": f"{variant.input_tokens:.0f}",
                "tp": plan.tp, "pp": plan.pp, "dp": plan.dp, "users": users,
            }  # fmt: skip
        load = replace(problem.workload, mode="closed_loop", users=users, ttft_limit_s=None, tpot_limit_s=None)
        problem = replace(problem, workload=load)
        meant = Predictor(problem, calibration).screen(with_ceiling(problem, replace(plan, settings=None, gpus=())))
        page.page.evaluate("hash => { location.hash = hash; dispatchEvent(new HashChangeEvent('hashchange')); }", encoded(goto))
        within = "#card" if goto["view"] == "users" else "#whatif"
        for name, estimate in (("ttft", meant.ttft_s), ("tpot", meant.tpot_s), ("rate", meant.output_tokens_per_s)):
            shown = page.figure(name, within=within)
            if not near(shown, estimate.value):
                misses.append((label.label, users, name, shown, estimate.value))
    assert not misses, misses[:10]


def short_label(plan: Any) -> str:
    from advisor.report.words import short

    return short(plan)


def encoded(state: dict[str, object]) -> str:
    from urllib.parse import urlencode

    return urlencode(state)


def test_nothing_is_printed_and_nothing_requested(page: Any) -> None:
    for view in VIEWS:
        page.go(view=view)
        page.page.reload()
        page.page.wait_for_selector("main .view")
    assert page.complaints == []
    assert page.requests == []


def test_a_link_keeps_the_view(page: Any, open_file: Callable[..., Any]) -> None:
    page.go(view="why")
    move(page, "batch", 1, "ArrowLeft")
    page.page.select_option("#context", "4096")
    address = page.page.url
    other = open_file(page.file)
    other.page.goto(address)
    other.page.wait_for_selector("#table-steps")
    assert other.page.locator("#batch-shown").inner_text() == page.page.locator("#batch-shown").inner_text()
    assert other.page.locator("#context").input_value() == "4096"


def test_an_address_that_makes_no_sense_changes_nothing(page: Any) -> None:
    page.go(view="<script>", plan="nonsense", users="many", x="constructor", tp="-1", colour="__proto__")
    assert page.page.locator("#table-plans tbody tr").count() > 3
    for view in VIEWS:
        page.go(view=view, plan="x", users="-5", batch="NaN", context="", rung="?", gpu="none", colour="toString", phase="x", x="y")
        assert page.page.locator("main .view").count() == 1
    assert page.complaints == []


def test_files_leave_the_page(page: Any) -> None:
    page.go()
    with page.page.expect_download() as csv:
        page.page.click("[data-key='csv-plans']")
    lines = Path(csv.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("plan,GPUs,users,TTFT")
    assert lines[1].startswith('"tp=4,dp=2",8,')
    with page.page.expect_download() as svg:
        page.page.click("[data-key='svg-plans']")
    drawing = Path(svg.value.path()).read_text(encoding="utf-8")
    assert drawing.startswith("<svg")
    assert "var(--" not in drawing
    assert "tp=4,dp=2" in drawing
    with page.page.expect_download() as png:
        page.page.click("[data-key='png-plans']")
    assert Path(png.value.path()).read_bytes().startswith(b"\x89PNG")
    assert page.complaints == []


@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_nothing_is_wider_than_the_screen(open_file: Callable[..., Any], dense_file: Path, width: int) -> None:
    opened = open_file(dense_file, width=width)
    for view in VIEWS:
        opened.go(view=view)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width, view


HOSTILE = (
    "<script>window.hacked=1</script>",
    "\"'><img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>",
    "\u202egnp.exe \u2066 اسم النموذج",
    "x" * 10_000,
    "{{DATA}} {{PROGRAM}} \u2028 & &amp;",
)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_text(open_file: Callable[..., Any], tmp_path: Path, name: str) -> None:
    file = tmp_path / "hostile.html"
    write_page(hostile(dense(), name), file)
    opened = open_file(file)
    for view in VIEWS:
        opened.go(view=view)
        opened.page.wait_for_timeout(20)
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("script").count() == 2
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("h1").text_content().startswith(name)
    assert name in opened.page.locator("#head li").first.text_content()
    assert opened.complaints == []
    assert opened.requests == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 1280


def hostile(exploration: Exploration, name: str) -> Exploration:
    """The same answer with this name wherever text from outside stands."""
    advice = exploration.advice
    rejected = tuple(replace(r, reason=name) for r in advice.rejected)
    machine = replace(exploration.problem.cluster.node, name=name)
    problem = replace(exploration.problem, cluster=replace(exploration.problem.cluster, node=machine, assumed=name))
    variants = tuple(replace(variant, refused=name) if n else variant for n, variant in enumerate(exploration.variants))
    advice = replace(advice, said=(name, *advice.said), rejected=rejected, launch=name, notes=(name,))
    asked_ = replace(exploration.asked, model=name, machine=name)
    return replace(exploration, problem=problem, advice=advice, asked=asked_, variants=variants)


AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: `npm ci` in tests/browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_no_violation(open_file: Callable[..., Any], dense_file: Path, scheme: str, width: int) -> None:
    opened = open_file(dense_file, width=width, scheme=scheme)
    for view in VIEWS:
        opened.go(view=view)
        # The page's own policy refuses scripts from outside, so axe is put in by the debugger.
        opened.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = opened.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        problems = [(v["id"], v["help"], [n["html"][:160] for n in v["nodes"]][:3]) for v in found["violations"]]
        assert problems == [], view
