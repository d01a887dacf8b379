"""The report's tables, sentences and number formats, from a study's meta alone."""

import copy
import csv
import io
from typing import Any

import pytest

from softlabel.core import StoreError
from softlabel.lab import FULL_LABELS
from softlabel.report import (
    REGIME_COLUMNS,
    RESULT_COLUMNS,
    VERDICT_COLUMNS,
    csv_table,
    headline,
    markdown_table,
    regime_table,
    result_table,
    verdict_table,
)
from softlabel.report._facts import parse_facts
from softlabel.report._headline import tally
from softlabel.report._palette import Palette
from softlabel.report._text import duration, flat_settings, human_bytes, loss_name, percent, points

BLANK: dict[str, Any] = {"std": None, "low": None, "high": None}


def make_score(mean: float, n: int = 3) -> dict[str, Any]:
    spread = {"std": 0.004, "low": mean - 0.01, "high": mean + 0.01} if n > 1 else BLANK
    return {"mean": mean, "n": n, **spread}


def make_arm(set_name: str | None, loss: str, mean: float, labels: str = "online", **changes: Any) -> dict[str, Any]:
    arm = {
        "name": f"{set_name or 'full data'} / {loss}",
        "set": set_name,
        "loss": loss,
        "labels": labels,
        "role": "arm",
        "epochs": 300,
        "seeds": [0, 1, 2],
        "final": make_score(mean),
        "best_test": make_score(mean + 0.01),
        "bytes": {"images": 12_345, "labels": 100, "labeler": 1_000_000},
        "records": ["r0", "r1", "r2"],
        "note": "",
    }
    return arm | changes


def make_meta(*comparisons: tuple[str, str, float, str]) -> dict[str, Any]:
    arms = [
        make_arm("rded", "gift", 0.78),
        make_arm("rded", "kl:temperature=4", 0.74),
        make_arm("rded", "ce", 0.62, labels="hard", role="baseline"),
        make_arm("random", "gift", 0.76, role="baseline"),
        make_arm(None, "ce", 0.905, labels="hard", role="baseline"),
    ]
    sets = [
        {"name": name, "path": name, "method": method, "ipc": 10, "images": 40, "image_bytes": 9, "digest": "d"}
        for name, method in (("rded", "rded:factor=1"), ("random", "random"))
    ]
    return {
        "name": "toy",
        "title": "Toy",
        "command": "softlabel run toy",
        "dataset": {
            "name": "toy",
            "class_names": ["a", "b"],
            "channels": 1,
            "height": 8,
            "width": 8,
            "mean": [0.5],
            "std": [0.5],
            "digest": "d",
            "origin": "",
        },
        "protocol": {"name": "gift", "fingerprint": "f", "settings": {}},
        "student": "convnet-3",
        "teacher": None,
        "sets": sets,
        "arms": arms,
        "comparisons": [
            {"arm": arm, "against": against, "difference": make_score(size), "verdict": verdict}
            for arm, against, size, verdict in comparisons
        ],
        "labels_shown": [],
        "notes": [],
        "environment": {},
    }


def test_result_rows_hold_numbers_and_show_them() -> None:
    rows = result_table(make_meta(), {"rded / gift": 95.0})
    assert len(rows[0].cells) == len(RESULT_COLUMNS)
    assert rows[0].final.mean == 0.78
    assert rows[0].cells[:8] == (
        "rded / gift",
        "online",
        "gift",
        "78.0 ± 0.4",
        "77.0 to 79.0",
        "3",
        "79.0 ± 0.4",
        "300",
    )
    assert rows[0].cells[8:] == ("12.3 kB", "100 B", "1 MB", "1.01 MB", "1 min 35 s")
    assert rows[0].bytes.total == 1_012_445
    assert rows[2].cells[0] == "rded / ce (baseline)"
    assert rows[1].train_seconds is None


def test_one_seed_shows_no_spread() -> None:
    meta = make_meta()
    meta["arms"] = [make_arm("rded", "gift", 0.78, final=make_score(0.78, n=1), best_test=None)]
    cells = result_table(meta)[0].cells
    assert cells[3:7] == ("78.0", "\u2014", "1", "\u2014")


def test_verdict_rows_are_in_points() -> None:
    rows = verdict_table(make_meta(("rded / gift", "rded / ce", 0.162, "better")))
    assert len(rows[0].cells) == len(VERDICT_COLUMNS)
    assert rows[0].cells == ("rded / gift", "rded / ce", "+16.2", "+15.2 to +17.2", "3", "better")


@pytest.mark.parametrize(
    ("arm", "against", "size", "verdict", "sentence"),
    [
        ("rded / gift", "rded / ce", 0.162, "better", "GIFT beats hard labels on RDED images by 16.2 points"),
        ("rded / ce", "rded / gift", -0.162, "worse", "Hard labels fall behind GIFT on RDED images by 16.2 points"),
        (
            "rded / gift",
            "rded / kl:temperature=4",
            0.003,
            "not distinguishable",
            "GIFT and KL (temperature=4) are not distinguishable on RDED images: the difference is +0.3 points",
        ),
        ("rded / gift", "random / gift", 0.02, "better", "RDED images beat random real images under GIFT by 2.0"),
        (
            "rded / gift",
            "full data / ce",
            -0.125,
            "worse",
            "GIFT on RDED images falls behind the full data set by 12.5",
        ),
    ],
)
def test_headline_is_the_first_comparison_in_words(
    arm: str, against: str, size: float, verdict: str, sentence: str
) -> None:
    found = headline(make_meta((arm, against, size, verdict), ("rded / gift", "rded / ce", 0.9, "better")))
    assert found.startswith(sentence)
    assert found.endswith(", 3 seeds).")


def test_headline_of_one_seed_claims_nothing() -> None:
    meta = make_meta(("rded / gift", "rded / ce", 0.162, "needs two seeds or more"))
    meta["comparisons"][0]["difference"] = make_score(0.162, n=1)
    assert headline(meta) == (
        "GIFT differs from hard labels on RDED images by +16.2 points with one seed: too few to tell them apart."
    )


def test_headline_without_comparisons_names_the_best_small_set() -> None:
    assert headline(make_meta()) == "GIFT on RDED images reaches 78.0 % (3 seeds)."
    assert headline(make_meta() | {"arms": []}) == "This study holds no results yet."


def test_headline_falls_back_to_arm_names_when_words_would_be_equal() -> None:
    meta = make_meta(("rded / gift", "twin", 0.1, "better"))
    meta["arms"].append(make_arm("rded", "gift", 0.68, name="twin"))
    assert headline(meta).startswith("\u201crded / gift\u201d beats \u201ctwin\u201d by 10.0 points")


def test_sets_of_one_method_are_told_apart_by_name() -> None:
    meta = make_meta(("rded / gift", "rded-50 / gift", -0.03, "worse"))
    meta["sets"].append(copy.deepcopy(meta["sets"][0]) | {"name": "rded-50", "ipc": 50})
    meta["arms"].append(make_arm("rded-50", "gift", 0.81))
    assert headline(meta).startswith("RDED images (rded) fall behind RDED images (rded-50) under GIFT by 3.0 points")


def test_tally_counts_verdicts() -> None:
    better = ("rded / gift", "rded / ce", 0.1, "better")
    assert tally(parse_facts(make_meta(better))) == ""
    assert tally(parse_facts(make_meta(better, better))) == "Of 2 comparisons, 2 are better."
    unknown = (*better[:3], "needs two seeds or more")
    assert tally(parse_facts(make_meta(unknown, unknown, better))) == (
        "Of 3 comparisons, 2 need two seeds or more and 1 is better."
    )


def test_palette_gives_each_treatment_one_colour() -> None:
    meta = make_meta()
    meta["arms"].append(make_arm("rded", "gift", 0.7, labels="fixed", name="rded / gift fixed"))
    facts = parse_facts(meta)
    palette = Palette(facts)
    assert [key.label for key in palette.keys] == [
        "GIFT (online labels)",
        "KL (temperature=4)",
        "hard labels",
        "GIFT (fixed labels)",
    ]
    assert palette.colour(facts.arm("rded / gift")) == palette.colour(facts.arm("random / gift"))


def test_csv_keeps_all_digits_and_is_safe_in_a_spreadsheet() -> None:
    meta = make_meta()
    meta["arms"][0] |= {"name": '=cmd("x"), y', "final": make_score(0.7812345)}
    rows = list(csv.DictReader(io.StringIO(csv_table(meta, {"rded / ce": 9.5}))))
    assert rows[0]["arm"] == '\'=cmd("x"), y'
    assert float(rows[0]["final_mean"]) == 0.7812345
    assert rows[0]["train_seconds"] == ""
    assert rows[2]["train_seconds"] == "9.5"
    assert (rows[0]["total_bytes"], rows[0]["seeds"], rows[0]["records"]) == ("1012445", "0 1 2", "r0 r1 r2")
    assert rows[4]["set"] == ""


def test_markdown_tables_have_one_line_per_row_whatever_the_names() -> None:
    meta = make_meta(("rded / gift", "rded / ce", 0.162, "better"))
    meta["arms"][3]["name"] = "a|b\n<script>*x*</script>"
    lines = markdown_table(meta).splitlines()
    assert len(lines) == 2 + 5 + 1 + 2 + 1
    assert lines[5].startswith("| a\\|b &lt;script>\\*x\\*&lt;/script> (baseline) |")
    assert "+16.2" in lines[-1]


def test_a_study_of_bytes_tells_what_is_kept_of_full_labels() -> None:
    meta = make_meta(("rded / gift", "rded / ce", -0.04, "worse"))
    assert regime_table(meta) == []
    meta["plots"] = [{"kind": "bytes"}]
    for arm, labels, stored in ((meta["arms"][0], "replay+int4", 500), (meta["arms"][2], FULL_LABELS, 2000)):
        arm["axes"] = {
            "set": "rded",
            "teacher": "t",
            "student": "s",
            "optimizer": "o",
            "loss": "gift",
            "labels": labels,
        }
        arm |= {"final": make_score(0.76 if stored == 500 else 0.8)}
        arm["bytes"] |= {"labels": stored, "labeler": 0}
    few, full = regime_table(meta)
    assert few.cells[:2] == ("rded", "replay+int4 ★")
    assert (few.kept, few.smaller, full.kept, full.kept_interval) == ("95.0", "4", "100.0", "—")
    low, high = (100 * (0.8 + meta["comparisons"][0]["difference"][end]) / 0.8 for end in ("low", "high"))
    assert few.kept_interval == f"{low:.1f} to {high:.1f}"
    assert len(few.cells) == len(REGIME_COLUMNS)
    assert f"| {few.kept} | {few.kept_interval} |" in markdown_table(meta)


def test_a_comparison_of_an_unknown_arm_is_refused() -> None:
    with pytest.raises(StoreError, match="compares the arm 'nobody'"):
        result_table(make_meta(("nobody", "rded / ce", 0.1, "better")))


def test_a_meta_without_an_entry_is_refused_by_name() -> None:
    meta = make_meta()
    del meta["arms"][0]["bytes"]["labeler"]
    with pytest.raises(StoreError, match="has no entry 'labeler'"):
        markdown_table(meta)


def test_numbers_read_well() -> None:
    assert [percent(0.6317), percent(-0.00001), points(0.1624), points(-0.0123), points(0.0001)] == [
        "63.2",
        "0.0",
        "+16.2",
        "\u22121.2",
        "0.0",
    ]
    assert [human_bytes(count) for count in (0, 999, 1000, 999_600, 47_040_016, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1 MB",
        "47 MB",
        "3 TB",
    ]
    assert [duration(value) for value in (None, 9.31, 95.0, 7290.0)] == [
        "\u2014",
        "9.3 s",
        "1 min 35 s",
        "2 h 1 min",
    ]
    assert [loss_name(spec) for spec in ("gift", "kl:temperature=4", "their.loss")] == [
        "GIFT",
        "KL (temperature=4)",
        "their.loss",
    ]


def test_settings_are_flattened_in_order() -> None:
    settings = {"optimizer": {"name": "adamw", "lr": 0.001}, "views": ["crop"], "ema": None, "amp": True, "extra": {}}
    assert flat_settings(settings) == [
        ("optimizer.name", "adamw"),
        ("optimizer.lr", "0.001"),
        ("views", "crop"),
        ("ema", "none"),
        ("amp", "yes"),
        ("extra", "none"),
    ]
