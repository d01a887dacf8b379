"""The report of a grid: its plots, arms that failed, the continual part, one row per student."""

import csv
import importlib.util
import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from softlabel.core import StoreError
from softlabel.report import _cells as cells_module
from softlabel.report import csv_table, headline, markdown_table, render_html, result_table, verdict_table, write_report
from softlabel.report._continual import continual_figure, continual_rows
from softlabel.report._facts import StudyFacts, parse_facts
from softlabel.report._grid import place, settings_note, swept_losses
from softlabel.report._grid_plots import grid_figure, grid_keys
from softlabel.report._headline import tally
from softlabel.report._palette import Palette
from softlabel.report._panels import panels
from softlabel.store import Store, new_artifact

ATTACK = "<script>alert(1)</script>"
DIVERGED = "The loss became nan in epoch 3."
METHODS = {"random": "random", "rded": "rded:factor=1", "dm": "dm"}
BARS = {"kind": "bars", "title": "Losses on every set", "group": "set", "bar": "loss"}
HEAT = {"kind": "heat", "title": "Optimizers", "rows": "optimizer", "columns": "loss", "where": {"set": "random"}}
SWEEP = {
    "kind": "sweep",
    "title": "Gamma",
    "loss": "gift",
    "parameter": "gamma",
    "line": "set",
    "default": 0.0909,
    "log": False,
}
EPOCHS = {
    "kind": "epochs",
    "title": "Teachers",
    "axis": "teacher",
    "x": {"early": 3, "late": 30},
    "line": "loss",
    "x_title": "epoch of the teacher",
}


def score(mean: float, n: int = 3) -> dict[str, Any]:
    spread = {"std": 0.004, "low": mean - 0.01, "high": mean + 0.01}
    return {"mean": mean, "n": n, **(spread if n > 1 else {"std": None, "low": None, "high": None})}


def make_arm(mean: float | None, seeds: int = 3, own_loss: bool = False, **axes: str) -> dict[str, Any]:
    """An arm of a grid with `seeds` seeds; all of them failed when `mean` is None."""
    axes = {
        "set": "random",
        "teacher": "late",
        "student": "convnet-3",
        "optimizer": "adamw",
        "loss": "kl",
    } | axes
    name = " / ".join(axes[axis] for axis in ("set", "teacher", "optimizer", "loss"))
    done = list(range(seeds)) if mean is not None else []
    return {
        "name": name,
        "set": axes["set"],
        "loss": axes["loss"],
        "labels": "hard" if axes["loss"] == "ce" else "online",
        "role": "arm",
        "epochs": 300,
        "seeds": done,
        "final": None if mean is None else score(mean, seeds),
        "best_test": None if mean is None else score(mean + 0.01, seeds),
        "bytes": {"images": 12_345, "labels": 100, "labeler": 1_000_000},
        "records": [re.sub(r"[^a-z0-9]+", "-", f"{name}-{seed}") for seed in done],
        "note": "",
        "axes": axes,
        "failed": [] if done else [{"seed": seed, "error": DIVERGED} for seed in range(seeds)],
        **({"own_loss": True} if own_loss else {}),
    }


def small_grid() -> list[dict[str, Any]]:
    """3 losses on 2 sets, one more optimizer of which one arm failed, a sweep of gamma, an early teacher."""
    arms = [
        make_arm(level + 0.01 * step, set=set_name, loss=loss, own_loss=(set_name, loss) == ("rded", "kl"))
        for set_name, level in (("random", 0.50), ("rded", 0.60))
        for step, loss in enumerate(("ce", "kl", "gift"))
    ]
    arms += [make_arm(mean, loss=loss, optimizer="sgd") for loss, mean in (("ce", 0.41), ("kl", 0.44), ("gift", None))]
    arms += [make_arm(0.5 + gamma / 10, loss=f"gift:gamma={gamma}") for gamma in (0.0, 0.3)]
    return [*arms, make_arm(0.47, loss="gift", teacher="early")]


def make_meta(arms: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    arms = small_grid() if arms is None else arms
    data = {
        "name": "toy",
        "class_names": ["a", "b", "c", "d"],
        "channels": 1,
        "height": 8,
        "width": 8,
        "mean": [0.5],
        "std": [0.5],
        "digest": "d",
        "origin": "",
    }
    names = dict.fromkeys(arm["set"] for arm in arms if arm["set"] in METHODS)
    return {
        "name": "toy",
        "title": "Toy",
        "command": "softlabel run toy",
        "dataset": data,
        "protocol": {"name": "gift", "fingerprint": "f", "settings": {}},
        "student": "convnet-3",
        "teacher": None,
        "sets": [
            {"name": n, "path": n, "method": METHODS[n], "ipc": 10, "images": 40, "image_bytes": 9, "digest": "d"}
            for n in names
        ],
        "arms": arms,
        "comparisons": [],
        "labels_shown": [],
        "notes": [],
        "environment": {},
        "kind": "grid",
        "plots": [BARS, HEAT, SWEEP, EPOCHS],
    } | changes


def make_study(root: Path, meta: dict[str, Any]) -> Path:
    """A store with the study and its run records, without its sets."""
    store = Store(root)
    for arm in meta["arms"]:
        for seed, key in zip(arm["seeds"], arm["records"], strict=True):
            final = arm["final"]["mean"] + 0.004 * (seed - 1)
            record = {
                "key": key,
                "seed": seed,
                "accuracy": {"final": final, "best_test": final + 0.01},
                "curve": [{"epoch": epoch, "test_accuracy": final * epoch / 300} for epoch in (100, 200, 300)],
                "train_loss": [2.0, 1.0, 0.5],
                "steps": 600,
                "bytes": {**arm["bytes"], "images": arm["bytes"]["images"] + seed},
                "timing": {"train_seconds": 40.0 + seed},
            }
            store.write_record(key, record)
    path = store.study("toy", "abc")
    with new_artifact(path, "study", meta):
        pass
    return path


def draw(facts: StudyFacts, number: int) -> dict[str, Any]:
    plot = facts.plots[number]
    figure = grid_figure(facts, plot, place(facts, plot), Palette(facts))
    assert go.Figure(figure).data
    return figure


def test_bars_stand_in_groups_from_zero_with_numbers_and_own_losses_marked() -> None:
    facts = parse_facts(make_meta())
    figure = draw(facts, 0)
    assert [trace["y"][0] for trace in figure["data"]] == pytest.approx([50, 51, 52, 60, 61, 62])
    assert figure["layout"]["xaxis"]["ticktext"] == ["Random real images", "RDED images"]
    assert figure["layout"]["yaxis"]["range"][0] == 0
    assert figure["data"][0]["error_y"]["array"] == [1.0]
    assert [note["text"] for note in figure["layout"]["annotations"]] == [
        "50.0",
        "51.0",
        "52.0",
        "60.0",
        "61.0",
        "62.0",
    ]
    assert ["pattern" in trace["marker"] for trace in figure["data"]] == [False] * 4 + [True, False]
    keys = grid_keys(facts, facts.plots[0], place(facts, facts.plots[0]), Palette(facts))
    assert [key.label for key in keys] == ["cross-entropy", "KL", "GIFT"]
    assert len({key.colour for key in keys}) == 3
    assert [trace["marker"]["color"] for trace in figure["data"]] == [key.colour for key in keys] * 2


def test_a_plot_takes_the_usual_arm_and_says_what_it_leaves_out() -> None:
    facts = parse_facts(make_meta())
    placement = place(facts, facts.plots[0])
    assert {arm.axes["optimizer"] for arm in placement.arms.values()} == {"adamw"}
    assert placement.left_out == 4
    assert settings_note(facts, facts.plots[0], placement) == (
        "All with teacher late, optimizer adamw. Not drawn here: 4 more arms, which the table lists."
    )
    assert swept_losses(facts) == {"gift:gamma=0.0", "gift:gamma=0.3"}


def test_a_study_made_before_labels_were_an_axis_has_their_regime() -> None:
    facts = parse_facts(make_meta([make_arm(0.5), make_arm(0.4, loss="ce")]))
    assert [arm.axes["labels"] for arm in facts.arms] == ["online", "hard"]
    facts = parse_facts(make_meta([make_arm(0.5, labels="online+keep:top=2")]))
    assert facts.arms[0].axes["labels"] == "online+keep:top=2"


def test_a_curve_over_sets_can_have_a_logarithmic_scale() -> None:
    plot = EPOCHS | {"axis": "set", "x": {"random": 1, "rded": 10}, "x_title": "images per class", "log": True}
    figure = draw(parse_facts(make_meta([make_arm(0.5), make_arm(0.6, set="rded")], plots=[plot])), 0)
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_that_a_loss_looks_at_no_teacher_is_no_difference_of_its_own() -> None:
    arms = [make_arm(0.5, loss="gift", labels="online"), make_arm(0.3, loss="ce", teacher="none", labels="hard")]
    difference = {"mean": 0.2, "std": 0.01, "low": 0.1, "high": 0.3, "n": 3}
    told = {"arm": arms[0]["name"], "against": arms[1]["name"], "difference": difference, "verdict": "better"}
    sentence = headline(make_meta(arms, comparisons=[told]))
    assert (
        sentence == "GIFT beats hard labels on random real images by 20.0 points (95 % interval 10.0 to 30.0, 3 seeds)."
    )


def test_where_takes_a_value_or_several() -> None:
    only = {"where": {"loss": ["kl", "gift:gamma=0.3"], "optimizer": "adamw"}}
    facts = parse_facts(make_meta(plots=[BARS | only, SWEEP]))
    assert place(facts, facts.plots[0]).values(1) == ["kl", "gift:gamma=0.3"]


def test_an_own_loss_stays_with_the_bars_although_a_sweep_shows_it() -> None:
    arms = [make_arm(0.5), make_arm(0.6, set="rded", loss="kl:temperature=20", own_loss=True)]
    sweep = SWEEP | {"loss": "kl", "parameter": "temperature", "default": 1.0}
    facts = parse_facts(make_meta(arms, plots=[BARS, sweep]))
    assert place(facts, facts.plots[0]).values(1) == ["kl", "kl:temperature=20"]


def test_full_data_is_a_line_across_the_bars() -> None:
    full = make_arm(0.9, seeds=1, set="full data", loss="ce") | {"role": "baseline", "name": "full data / ce"}
    facts = parse_facts(make_meta([*small_grid(), full]))
    figure = draw(facts, 0)
    assert len(figure["data"]) == 6
    assert figure["layout"]["shapes"][0]["y0"] == 90
    assert figure["layout"]["annotations"][-1]["text"] == "full data<br>90.0"


def test_heat_map_has_a_number_per_cell_and_says_what_diverged() -> None:
    facts = parse_facts(make_meta())
    figure = draw(facts, 1)
    trace = figure["data"][0]
    assert trace["z"] == [[50.0, 51.0, 52.0], [41.0, 44.0, None]]
    assert figure["layout"]["yaxis"]["ticktext"] == ["adamw", "sgd"]
    notes = figure["layout"]["annotations"]
    assert len(notes) == 6
    assert notes[0]["text"].startswith("50.0<br>")
    assert "\u00b1 0.4" in notes[0]["text"]
    assert "diverged" in notes[5]["text"]
    assert DIVERGED in notes[5]["hovertext"].replace("<br>", " ")
    assert len(figure["layout"]["shapes"]) == 1


def test_a_cell_of_which_some_seeds_failed_keeps_its_mean_and_says_so() -> None:
    part = make_arm(0.5, seeds=2) | {"failed": [{"seed": 2, "error": DIVERGED}]}
    meta = make_meta([part, make_arm(0.6, loss="gift")])
    notes = draw(parse_facts(meta), 1)["layout"]["annotations"]
    assert notes[0]["text"].startswith("50.0<br>")
    assert "1 of 3 failed" in notes[0]["text"]
    row = result_table(meta)[0]
    assert row.cells[3:6] == ("50.0 ± 0.4", "49.0 to 51.0", "2 of 3")
    assert row.note == f"seed 2 failed: {DIVERGED}"


def test_a_cell_without_an_arm_is_a_dash() -> None:
    arms = [make_arm(0.5), make_arm(0.6, loss="gift", optimizer="sgd")]
    notes = draw(parse_facts(make_meta(arms, plots=[HEAT])), 0)["layout"]["annotations"]
    assert [note["text"][:4] for note in notes] == ["50.0", "\u2013", "\u2013", "60.0"]


def test_sweep_reads_the_option_and_puts_the_plain_loss_at_its_default() -> None:
    facts = parse_facts(make_meta())
    figure = draw(facts, 2)
    (random,) = figure["data"]  # the other set has one value only, which makes no curve
    assert random["x"] == [0.0, 0.0909, 0.3]
    assert random["y"] == [50.0, 52.0, 53.0]
    assert random["error_y"]["array"] == [1.0] * 3
    assert place(facts, facts.plots[2]).left_out == 3
    assert figure["layout"]["shapes"][0]["x0"] == 0.0909
    assert figure["layout"]["annotations"][0]["text"] == "default 0.0909"
    assert figure["layout"]["xaxis"].get("type") is None


def test_sweep_is_logarithmic_where_it_can_be_and_leaves_other_options_out() -> None:
    arms = [make_arm(0.5, loss=f"kl:temperature={value}") for value in (2, 4)]
    arms += [make_arm(0.4, loss="kl:temperature=4,scale=True"), make_arm(None, loss="kl:temperature=20"), make_arm(0.6)]
    sweep = SWEEP | {"loss": "kl", "parameter": "temperature", "default": 1, "log": True}
    figure = draw(parse_facts(make_meta(arms, plots=[sweep])), 0)
    good, failed = figure["data"]
    assert (good["x"], failed["x"]) == ([1.0, 2.0, 4.0], [20.0])
    assert failed["hovertext"][0].endswith("failed")
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert figure["layout"]["annotations"][0]["x"] == 0.0
    arms[0]["axes"]["loss"] = "kl:temperature=0"
    assert draw(parse_facts(make_meta(arms, plots=[sweep])), 0)["layout"]["xaxis"].get("type") is None


def test_epochs_draws_a_line_per_loss_over_the_numbers_given() -> None:
    facts = parse_facts(make_meta())
    figure = draw(facts, 3)
    assert [(trace["name"], trace["x"], trace["y"]) for trace in figure["data"]] == [
        ("GIFT", [3.0, 30.0], [47.0, 52.0]),
    ]
    assert figure["layout"]["xaxis"]["title"]["text"] == "epoch of the teacher"


def test_panels_leave_no_half_of_the_page_empty() -> None:
    facts = parse_facts(make_meta())
    found = panels(facts, Palette(facts), lambda name, figure: name)  # type: ignore[arg-type,return-value]
    assert [(panel.plot, panel.wide) for panel in found] == [
        ("grid-0", True),
        ("grid-1", False),
        ("grid-2", False),
        ("grid-3", True),
    ]
    assert [panel.own_loss for panel in found] == [True, False, False, False]


def test_a_plot_without_arms_says_so(tmp_path: Path) -> None:
    page = render_html(make_study(tmp_path, make_meta(plots=[HEAT | {"where": {"set": "mtt"}}])))
    assert "No arm of this study belongs in this plot." in page


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ({"kind": "pie", "title": "x"}, "kind 'pie'; known are bars, heat, sweep, epochs"),
        (BARS | {"bar": "colour"}, "'Losses on every set' names the axis 'colour'; the axes are set, teacher"),
        (HEAT | {"where": {"size": "1"}}, "names the axis 'size'"),
        ({"kind": "bars", "title": "x", "group": "set"}, "no entry 'bar'"),
    ],
)
def test_a_plot_that_cannot_be_read_is_one_sentence(plot: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)):
        parse_facts(make_meta(plots=[plot]))


def test_axes_must_be_complete_and_a_missing_accuracy_explained() -> None:
    arm = make_arm(0.5)
    del arm["axes"]["teacher"]
    with pytest.raises(StoreError, match="has the axes set, student, optimizer, loss, labels; needed are"):
        parse_facts(make_meta([arm]))
    with pytest.raises(StoreError, match="has no accuracy, and no seed of it is listed as failed"):
        parse_facts(make_meta([make_arm(None) | {"failed": []}]))


def test_failed_arms_are_in_every_table_and_break_none() -> None:
    meta = make_meta()
    row = next(row for row in result_table(meta) if row.final is None)
    assert row.cells[3:7] == ("failed", "\u2014", "0 of 3", "\u2014")
    assert f"seed 1 failed: {DIVERGED}" in row.note
    assert row.bytes.total == 1_012_445
    assert "| random / late / sgd / gift | online | gift | failed |" in markdown_table(meta)
    line = next(line for line in csv.DictReader(io.StringIO(csv_table(meta))) if line["n"] == "0")
    assert (line["arm"], line["final_mean"], line["total_bytes"]) == ("random / late / sgd / gift", "", "1012445")


def test_headline_passes_over_comparisons_that_failed_and_counts_them() -> None:
    failed = {"arm": "random / late / sgd / gift", "against": "random / late / sgd / kl", "difference": None}
    good = {"arm": "random / late / sgd / kl", "against": "random / late / sgd / ce", "difference": score(0.03)}
    comparisons = [failed | {"verdict": "failed"}, good | {"verdict": "better"}]
    meta = make_meta(comparisons=comparisons)
    assert headline(meta).startswith(
        "KL beats hard labels on random real images (teacher late, optimizer sgd) by 3.0 points"
    )
    assert tally(parse_facts(meta)) == "Of 2 comparisons, 1 could not be made and 1 is better. 1 of 12 arms failed."
    assert verdict_table(meta)[0].cells[2:] == ("\u2014", "\u2014", "0", "failed")


def test_headline_names_arms_that_differ_in_another_axis() -> None:
    pair = {"arm": "random / late / adamw / kl", "against": "random / late / sgd / kl"}
    meta = make_meta(comparisons=[pair | {"difference": score(0.07), "verdict": "better"}])
    assert headline(meta).startswith(
        "\u201crandom / late / adamw / kl\u201d beats \u201crandom / late / sgd / kl\u201d by 7.0 points"
    )


def test_headline_of_many_comparisons_is_short() -> None:
    pair = {"arm": "random / late / adamw / kl", "against": "random / late / adamw / ce", "difference": score(0.01)}
    meta = make_meta(comparisons=[pair | {"verdict": verdict} for verdict in ["better", "worse"] * 100])
    assert headline(meta).count(".") < 5
    assert tally(parse_facts(meta)).startswith("Of 200 comparisons, 100 are better and 100 are worse.")


def test_a_study_of_failed_arms_alone_still_makes_a_page(tmp_path: Path) -> None:
    meta = make_meta([make_arm(None), make_arm(None, loss="gift")])
    assert headline(meta) == "Every arm of this study failed."
    files = write_report(make_study(tmp_path, meta))
    assert "2 of 2 arms failed." in files.html.read_text(encoding="utf-8")
    for number in range(len(meta["plots"])):
        facts = parse_facts(meta)
        grid_figure(facts, facts.plots[number], place(facts, facts.plots[number]), Palette(facts))


def continual() -> dict[str, Any]:
    arms = [
        {
            "name": f"{set_name} / {loss}",
            "set": set_name,
            "loss": loss,
            "steps": [score(0.8), score(0.6)],
            "average": score(0.7),
            "forgetting": score(0.123, seeds),
        }
        for set_name, loss, seeds in (("random", "kl", 3), ("random", "gift", 3), ("rded", "gift", 1))
    ]
    return {"classes": [["a", "b"], ["c", ATTACK]], "arms": arms}


def test_continual_part_has_a_curve_per_arm_and_a_table(tmp_path: Path) -> None:
    meta = make_meta(continual=continual())
    facts = parse_facts(meta)
    assert facts.continual is not None
    figure = continual_figure(facts, facts.continual, Palette(facts))
    assert go.Figure(figure).data
    assert [trace["x"] for trace in figure["data"]] == [[1.94, 3.94], [2, 4], [2.06, 4.06]]
    assert figure["layout"]["xaxis"]["tickvals"] == [2, 4]
    assert figure["data"][1]["line"]["color"] == figure["data"][2]["line"]["color"]
    assert figure["data"][1]["line"]["dash"] != figure["data"][2]["line"]["dash"]
    row = continual_rows(facts.continual)[0]
    assert (row.steps, row.average, row.forgetting) == (("80.0", "60.0"), "70.0 ± 0.4", "12.3 ± 0.4")
    page = render_html(make_study(tmp_path, meta))
    assert '<section id="continual">' in page
    assert "<li>c, &lt;script&gt;alert(1)&lt;/script&gt;</li>" in page


def test_continual_steps_that_do_not_match_are_refused() -> None:
    wrong = continual()
    wrong["arms"][0]["steps"].pop()
    with pytest.raises(StoreError, match="'random / kl' has 1 steps, and there are 2"):
        parse_facts(make_meta(continual=wrong))


def test_large_grids_fold_what_has_a_row_or_a_line_per_arm(tmp_path: Path) -> None:
    small = render_html(make_study(tmp_path / "small", make_meta()))
    assert 'class="fold"' not in small
    arms = [*small_grid(), make_arm(0.3, student="resnet-18")]
    arms[-1]["name"] += " / resnet-18"
    large = render_html(make_study(tmp_path / "large", make_meta(arms)))
    assert large.count('<details class="fold">') == 3
    assert large.count("<template>") == large.count("</template>") == 2
    assert large.index("<template>") < large.index('id="plot-accuracy"')
    assert "document.importNode" in large
    assert "<details open" not in large


def test_studies_without_the_new_entries_have_no_trace_of_grids(tmp_path: Path) -> None:
    old = make_meta([make_arm(0.5), make_arm(0.6, loss="gift")])
    for entry in ("kind", "plots"):
        del old[entry]
    for arm in old["arms"]:
        del arm["axes"], arm["failed"]
    page = render_html(make_study(tmp_path, old))
    body = page[page.index("<body") :]
    for trace in ('id="grid"', 'id="continual"', "<template", "grid-plots", "failed", 'class="fold"'):
        assert trace not in body
    assert "grid-plots" not in page[page.index("<style>") : page.index("</style>")]


def test_what_a_user_names_is_escaped_in_grids_too(tmp_path: Path) -> None:
    arms = small_grid()
    for arm in arms:
        arm["name"] += ATTACK
        arm["axes"]["optimizer"] += ATTACK
        arm["axes"]["teacher"] = ATTACK
    arms[8]["failed"] = [{"seed": 0, "error": ATTACK}]
    epochs = EPOCHS | {"x": {ATTACK: 3}, "x_title": ATTACK}
    plots = [plot | {"title": ATTACK} for plot in (BARS, HEAT, SWEEP | {"parameter": "gamma"}, epochs)]
    part = continual()
    part["arms"][0]["name"] = ATTACK
    page = render_html(make_study(tmp_path, make_meta(arms, plots=plots, continual=part)))
    assert "<script>alert" not in page
    assert "alert(1)</script>" not in page
    # Plotly would read tags in its texts: there they are escaped twice, once as text and once as JSON.
    assert "\\u003cscript" not in page[page.index("plot-grid-0") :]
    assert page.count("\\u0026lt;script") + page.count("&lt;script") > 20


def test_cells_hold_a_row_per_student_and_per_failed_seed(tmp_path: Path) -> None:
    arms = small_grid()
    arms[8]["failed"][0]["error"] = "=cmd()"
    study = make_study(tmp_path, make_meta(arms))
    files = write_report(study)
    assert files.cells == files.html.parent / "cells.csv"
    rows = list(csv.DictReader(io.StringIO(files.cells.read_text(encoding="utf-8"))))
    assert len(rows) == 12 * 3
    first = rows[1]
    assert (first["key"], first["seed"], first["steps"]) == ("random-late-adamw-ce-1", "1", "600")
    assert (first["set"], first["teacher"], first["optimizer"], first["student"]) == (
        "random",
        "late",
        "adamw",
        "convnet-3",
    )
    assert float(first["final"]) == 0.5
    assert (first["images_bytes"], first["total_bytes"], first["error"]) == ("12346", "1012446", "")
    failed = [row for row in rows if row["error"]]
    assert [(row["key"], row["seed"], row["final"], row["error"]) for row in failed] == [
        ("", "0", "", "'=cmd()"),
        ("", "1", "", DIVERGED),
        ("", "2", "", DIVERGED),
    ]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is an extra")
def test_cells_as_parquet_keep_types_and_texts(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    arms = small_grid()
    arms[8]["failed"][0]["error"] = "=cmd()"
    files = write_report(make_study(tmp_path, make_meta(arms)))
    table = pq.read_table(files.cells.with_suffix(".parquet")).to_pylist()
    rows = list(csv.DictReader(io.StringIO(files.cells.read_text(encoding="utf-8"))))
    assert [row["arm"] for row in table] == [row["arm"] for row in rows]
    assert list(table[0]) == list(rows[0]) == list(cells_module.CELL_COLUMNS)
    assert table[1]["final"] == 0.5
    assert table[24] | {"final": None, "error": "=cmd()", "seed": 0} == table[24]


def test_parquet_is_left_out_in_silence_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, make_meta())
    folder = write_report(study).html.parent
    (folder / "cells.parquet").write_bytes(b"of an earlier report")
    monkeypatch.setattr("softlabel.report._write.cells_parquet", lambda rows: None)
    write_report(study)
    assert sorted(path.name for path in folder.iterdir()) == ["cells.csv", "report.html", "table.csv", "table.md"]


@pytest.mark.chromium
def test_browser_draws_the_grid_and_what_is_folded_when_it_is_opened(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on PATH")
    arms = [*small_grid(), make_arm(0.3, student="resnet-18") | {"name": "thirteenth"}]
    page = write_report(make_study(tmp_path, make_meta(arms, continual=continual()))).html
    click = 'addEventListener("load", () => document.querySelectorAll("summary").forEach((fold) => fold.click()))'
    opened = tmp_path / "opened.html"
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{click}</script></body>")
    opened.write_text(text, encoding="utf-8")
    closed_dom, open_dom = (dump_dom(browser, file, tmp_path) for file in (page, opened))
    plots = [*(f"grid-{number}" for number in range(4)), "continual"]
    assert drawn(closed_dom) == [*plots, "bytes"]
    assert drawn(open_dom) == [*plots, "accuracy", "accuracy-0", "loss-0", "accuracy-1", "loss-1", "bytes"]


def drawn(dom: str) -> list[str]:
    return re.findall(r'id="plot-([a-z0-9-]+)" class="plotly-graph-div js-plotly-plot"', dom)


def dump_dom(browser: str, page: Path, tmp_path: Path) -> str:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    more = ("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000")
    command = [browser, *flags, *more, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, timeout=120, check=True, text=True).stdout
