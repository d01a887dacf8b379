"""The report of a small synthetic study: what is on the page, what is escaped, and what happens to bad input."""

import copy
import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import torch

from softlabel.cli._studies import show_study
from softlabel.core import DatasetInfo, DistilledSet, StoreError, plain, stream
from softlabel.lab import FULL_LABELS
from softlabel.report import _page, _plots, render_html, write_report
from softlabel.report._palette import Palette
from softlabel.report._pictures import LARGEST_SIDE, contact_sheet, picture
from softlabel.report._samples import _alike
from softlabel.report._study import read_study
from softlabel.store import Store, new_artifact, read_artifact, save_distilled

ATTACK = "<script>alert(1)</script>"
ARMS = (
    ("rded", "gift", "online", "arm", 0.780),
    ("rded", "kl", "online", "arm", 0.742),
    ("rded", "ce", "hard", "baseline", 0.618),
    ("random", "gift", "online", "baseline", 0.756),
    ("random", "kl", "online", "baseline", 0.725),
    ("random", "ce", "hard", "baseline", 0.630),
    ("full", "ce", "hard", "baseline", 0.905),
)


def make_info(classes: int = 4, channels: int = 1, size: int = 8, names: tuple[str, ...] = ()) -> DatasetInfo:
    filler = tuple(f"class {index}" for index in range(len(names), classes))
    return DatasetInfo(
        name="toy",
        class_names=(*names, *filler),
        channels=channels,
        height=size,
        width=size,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        digest="d1g35t",
        origin="drawn by a test",
    )


def make_set(info: DatasetInfo, method: str = "rded:factor=1", ipc: int = 5) -> DistilledSet:
    targets = torch.arange(info.classes).repeat_interleave(ipc)
    shape = (len(targets), *info.image_shape)
    images = torch.randint(0, 256, shape, generator=stream(0, method), dtype=torch.uint8)
    return DistilledSet(images=images, targets=targets, info=info, method=method, ipc=ipc, seed=0)


def score(values: list[float]) -> dict[str, Any]:
    mean, n = sum(values) / len(values), len(values)
    if n == 1:
        return {"mean": mean, "std": None, "low": None, "high": None, "n": 1}
    std = (sum((value - mean) ** 2 for value in values) / (n - 1)) ** 0.5
    half = 4.303 * std / n**0.5
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half, "n": n}


def make_record(key: str, seed: int, final: float, loss: str, epochs: int) -> dict[str, Any]:
    noise = torch.randn(epochs, generator=stream(seed, key)).mul(0.01).tolist()
    rise = [final * (1 - 0.75 * 0.93**epoch) for epoch in range(1, epochs + 1)]
    start = {"gift": 0.6, "kl": 0.03, "ce": 2.3}[loss]
    points = [(epoch, value + noise[epoch - 1]) for epoch, value in enumerate(rise, 1) if epoch % 5 == 0]
    return {
        "key": key,
        "seed": seed,
        "accuracy": {"final": final, "best_test": final + 0.006},
        "curve": [{"epoch": epoch, "test_accuracy": value} for epoch, value in points],
        "train_loss": [start * (0.15 + 0.85 * 0.95**epoch) * (1 + noise[epoch]) for epoch in range(epochs)],
        "timing": {"train_seconds": 41.5 + seed, "test_seconds": 1.0, "peak_memory_bytes": 10},
    }


def make_arm(store: Store, cell: tuple[str, str, str, str, float], seeds: int, epochs: int) -> dict[str, Any]:
    set_name, loss, labels, role, level = cell
    finals = [level + 0.004 * (seed - 1) for seed in range(seeds)]
    keys = [f"{set_name}-{loss}-{seed}" for seed in range(seeds)]
    for seed, (key, final) in enumerate(zip(keys, finals, strict=True)):
        store.write_record(key, make_record(key, seed, final, loss, epochs))
    full = set_name == "full"
    return {
        "name": "full data / ce" if full else f"{set_name} / {loss}",
        "set": set_name,
        "loss": loss,
        "labels": labels,
        "role": role,
        "epochs": epochs,
        "seeds": list(range(seeds)),
        "final": score(finals),
        "best_test": score([final + 0.006 for final in finals]),
        "bytes": {
            "images": 30_850_123 if full else 41_234,
            "labels": 60_000 if full else 100,
            "labeler": 0 if labels == "hard" else 1_234_567,
        },
        "records": keys,
        "note": "",
    }


def compare(arms: dict[str, Any], left: str, right: str, verdict: str) -> dict[str, Any]:
    size = arms[left]["final"]["mean"] - arms[right]["final"]["mean"]
    n = arms[left]["final"]["n"]
    half = 0.03 if verdict.startswith("not") else 0.01
    spread = {"std": 0.004, "low": size - half, "high": size + half}
    blank = {"std": None, "low": None, "high": None}
    return {
        "arm": left,
        "against": right,
        "difference": {"mean": size, "n": n, **(spread if n > 1 else blank)},
        "verdict": verdict if n > 1 else "needs two seeds or more",
    }


def make_meta(store: Store, info: DatasetInfo, seeds: int, epochs: int, digests: dict[str, str]) -> dict[str, Any]:
    arms = [make_arm(store, cell, seeds, epochs) for cell in ARMS]
    named = {arm["name"]: arm for arm in arms}
    bars = [
        {"class": 3, "probability": 0.61, "before": 0.70, "after": 0.75},
        {"class": 1, "probability": 0.22, "before": 0.40, "after": 0.38},
        {"class": 0, "probability": 0.09, "before": 0.21, "after": 0.20},
        {"class": 2, "probability": 0.05, "before": -0.10, "after": -0.09},
    ]
    curve = [
        {"epoch": epoch, "train_loss": 2.0 * 0.8**epoch, "test_accuracy": 0.9 - 0.6 * 0.7**epoch}
        for epoch in range(1, 21)
    ]
    return {
        "name": "toy-rded-ipc5",
        "title": "Soft labels on the toy data",
        "command": "softlabel run toy-rded-ipc5",
        "dataset": plain(info),
        "protocol": {
            "name": "gift",
            "fingerprint": "f1ng3r",
            "settings": {"epochs": epochs, "optimizer": {"name": "adamw", "lr": 0.001}, "views": ["crop", "flip"]},
        },
        "student": "convnet-3:width=64",
        "teacher": {
            "arch": "convnet-3:width=128",
            "path": "teachers/toy-abc",
            "fingerprint": "t34ch3r",
            "test_accuracy": 0.91,
            "best_test_accuracy": 0.915,
            "bytes": 1_234_567,
            "epochs": 20,
            "curve": curve,
        },
        "sets": [
            {
                "name": name,
                "path": f"distilled/{name}",
                "method": method,
                "ipc": 5,
                "images": 5 * info.classes,
                "image_bytes": 41_234,
                "digest": digests[name],
            }
            for name, method in (("rded", "rded:factor=1"), ("random", "random"))
        ],
        "arms": arms,
        "comparisons": [
            compare(named, "rded / gift", "rded / ce", "better"),
            compare(named, "rded / gift", "rded / kl", "better"),
            compare(named, "rded / gift", "random / gift", "not distinguishable"),
            compare(named, "rded / gift", "full data / ce", "worse"),
        ],
        "labels_shown": [{"set": "rded", "image": index, "target": 3, "bars": bars} for index in (7, 11)],
        "notes": ["A test made this."],
        "environment": {"softlabel": "0.1.0", "torch": "2.0", "threads": 2, "precision": "bf16", "device": "cpu"},
    }


def make_study(root: Path, info: DatasetInfo | None = None, seeds: int = 3, epochs: int = 40, **changes: Any) -> Path:
    """A whole store with one study in it; `changes` replace entries of the study's meta."""
    info = info or make_info()
    store = Store(root)
    digests = {
        name: save_distilled(make_set(info, method), root / "distilled" / name).digest
        for name, method in (("rded", "rded:factor=1"), ("random", "random"))
    }
    meta = make_meta(store, info, seeds, epochs, digests) | changes
    path = store.study("toy", "abc")
    with new_artifact(path, "study", meta):
        pass
    return path


class Outline(HTMLParser):
    """Collects a page's tags with their attributes, and its text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self._code = False
        self.feed(page)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._code = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._code = False

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.pieces.append(data)

    def values(self, *names: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags for name in names if name in attrs]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "store")


def test_report_is_written_beside_the_study_and_is_complete(study: Path) -> None:
    files = write_report(study)
    folder = study.parent.parent / "reports" / study.name
    assert (files.html, files.csv, files.markdown) == (
        folder / "report.html",
        folder / "table.csv",
        folder / "table.md",
    )
    names = {path.name for path in folder.iterdir()} - {"cells.parquet"}  # where pyarrow is installed
    assert names == {"report.html", "table.csv", "table.md", "cells.csv"}
    rows = list(csv.DictReader(io.StringIO(files.csv.read_text(encoding="utf-8"))))
    assert rows[0]["arm"] == "rded / gift"
    assert float(rows[0]["train_seconds"]) == pytest.approx(42.5)
    assert "| rded / gift |" in files.markdown.read_text(encoding="utf-8")


def test_report_goes_to_a_chosen_folder_and_is_the_same_each_time(study: Path, tmp_path: Path) -> None:
    first = write_report(study, tmp_path / "a")
    second = write_report(study, tmp_path / "b")
    assert first.html.parent == tmp_path / "a"
    assert first.html.read_bytes() == second.html.read_bytes()


def test_page_tells_the_finding_the_numbers_and_how_it_was_made(study: Path) -> None:
    text = Outline(render_html(study)).text
    finding = "GIFT beats hard labels on RDED images by 16.2 points (95 % interval 15.2 to 17.2, 3 seeds)."
    assert finding in text
    assert "Of 4 comparisons, 2 are better, 1 is not distinguishable and 1 is worse." in text
    for expected in (
        "78.0 ± 0.4",
        "77.0 to 79.0",
        "(optimistic)",
        "1.28 MB",
        "42.5 s",
        "softlabel run toy-rded-ipc5",
        "optimizer.lr 0.001",
        "drawn by a test",
        "t34ch3r",
        "rded-gift-0 rded-gift-1 rded-gift-2",
        "A test made this.",
    ):
        assert expected in text


def test_page_asks_nothing_of_the_network(study: Path) -> None:
    page = render_html(study)
    outline = Outline(page)
    links = outline.values("src", "href", "srcset", "action", "poster", "data", "xlink:href")
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not [tag for tag, _ in outline.tags if tag in {"link", "iframe", "object", "embed", "base"}]
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_a_study_of_bytes_tells_what_is_kept_wherever_it_is_shown(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = copy.deepcopy(read_artifact(study, "study").meta) | {"plots": [{"kind": "bytes"}]}
    rest = {"set": "rded", "student": "s", "optimizer": "o", "loss": "gift"}
    by_name = {arm["name"]: arm for arm in meta["arms"]}
    by_name["rded / gift"]["axes"] = rest | {"teacher": "a labeler", "labels": "online"}
    by_name["rded / gift"]["bytes"]["public"] = 13_600_000
    by_name["rded / kl"]["axes"] = rest | {"teacher": "a teacher", "labels": FULL_LABELS}
    path = study.parent / "bytes"
    with new_artifact(path, "study", meta):
        pass
    assert show_study(path, as_json=False)
    console = capsys.readouterr().out
    files = write_report(path)
    # 78.0 of 74.2 %, and the paired difference of 2.8 to 4.8 points over 74.2 %
    assert '<td class="n">105.1<br><small>103.8 to 106.5</small></td>' in files.html.read_text(encoding="utf-8")
    for text in (console, files.markdown.read_text(encoding="utf-8"), Outline(files.html.read_text("utf-8")).text):
        shown = " ".join(text.split())
        for words in ("What the bytes buy", "105.1", "103.8 to 106.5", "(13.6 MB) are in no total", "taken as exact"):
            assert words in shown
    [row] = [line for line in console.splitlines() if "online ★" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][1:4] == ["a labeler", "105.1", "103.8 to 106.5"]


def test_pictures_and_strips_carry_alternative_texts(study: Path) -> None:
    images = [attrs for tag, attrs in Outline(render_html(study)).tags if tag == "img"]
    assert len(images) == 4 + 4 + 2
    assert images[0]["alt"] == "5 distilled images of the class class 0"
    assert all(attrs["alt"] for attrs in images)


def test_everything_a_user_names_is_escaped(tmp_path: Path) -> None:
    info = make_info(names=(ATTACK, "<b>bold</b>", '"quote"', ATTACK))
    study = make_study(tmp_path / "store", info)
    manifest = study / "manifest.json"
    data = json.loads(manifest.read_text(encoding="utf-8"))
    meta = data["meta"]
    for arm in meta["arms"]:
        arm["note"] = ATTACK
        arm["name"] += ATTACK
    for comparison in meta["comparisons"]:
        comparison["arm"] += ATTACK
        comparison["against"] += ATTACK
    meta |= {"title": ATTACK, "command": ATTACK, "notes": [ATTACK], "student": ATTACK}
    meta["protocol"] = {"name": ATTACK, "fingerprint": ATTACK, "settings": {ATTACK: ATTACK}}
    meta["environment"] = {ATTACK: ATTACK}
    meta["teacher"] |= {"arch": ATTACK, "path": ATTACK}
    meta["dataset"]["origin"] = ATTACK
    manifest.write_text(json.dumps(data), encoding="utf-8")

    page = render_html(study)
    assert "alert(1)</script>" not in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    scripts = sum(tag == "script" for tag, _ in Outline(page).tags)
    assert scripts == sum(tag == "script" for tag, _ in Outline(render_html(make_study(tmp_path / "other"))).tags)
    # Plotly would read tags in its texts: there they are escaped twice, once as text and once as JSON.
    plots = page[page.index("plot-accuracy") :]
    assert "\\u003cscript" not in plots
    files = write_report(study)
    assert "<script" not in files.markdown.read_text(encoding="utf-8")


def test_plotly_json_cannot_end_its_script_element() -> None:
    figure = {"data": [{"type": "scatter", "name": "</script>" + ATTACK}], "layout": {"height": 10}}
    html = str(_page._plot("x", figure))
    assert html.count("</script>") == 1
    assert "\\u003c" in html


def test_figures_are_valid_plotly(study: Path) -> None:
    found = read_study(study)
    palette = Palette(found.facts)
    groups = _plots.groups(found)
    assert [group.title for group in groups] == ["RDED images", "random real images", "the full data set"]
    figures = [
        _plots.accuracy_figure(found, palette),
        _plots.bytes_figure(found, palette),
        *_plots.teacher_figures(found.facts.teacher or {}),
        *(draw(found, group, palette) for draw in (_plots.accuracy_curves, _plots.loss_curves) for group in groups),
    ]
    for figure in figures:
        assert go.Figure(figure).data


def test_accuracy_figure_shows_each_seed_and_the_full_data_line(study: Path) -> None:
    found = read_study(study)
    figure = _plots.accuracy_figure(found, Palette(found.facts))
    assert [len(trace["x"]) for trace in figure["data"]] == [1, 3] * 6
    line = next(shape for shape in figure["layout"]["shapes"] if shape["type"] == "line")
    assert line["x0"] == pytest.approx(90.5)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    study = make_study(tmp_path / "store", seeds=1)
    text = Outline(render_html(study)).text
    assert "too few to tell them apart" in text
    assert "needs two seeds or more" in text
    assert "±" not in text.split("Results")[2].split("Bytes are what")[0].replace("mean ± standard", "")
    found = read_study(study)
    errors = [trace["error_x"] for trace in _plots.accuracy_figure(found, Palette(found.facts))["data"]]
    assert errors == [{"visible": False}] * 6


def test_a_missing_record_is_one_sentence(study: Path) -> None:
    (study.parent.parent / "records" / "rded-kl-1.json").unlink()
    with pytest.raises(StoreError, match=r"rded-kl-1 for the arm 'rded / kl'.*run the command"):
        write_report(study)


def test_a_record_of_another_form_is_one_sentence(study: Path) -> None:
    Store(study.parent.parent).write_record("rded-kl-1", {"seed": 1})
    with pytest.raises(StoreError, match=r"rded-kl-1\.json is no run record.*accuracy"):
        write_report(study)


def test_a_missing_set_is_said_in_its_place_and_the_rest_is_written(study: Path) -> None:
    shutil.rmtree(study.parent.parent / "distilled" / "rded")
    outline = Outline(write_report(study).html.read_text(encoding="utf-8"))
    assert "The images of this set are not shown. There is nothing at" in outline.text
    assert "picture not at hand" in outline.text
    assert sum(tag == "img" for tag, _ in outline.tags) == 4


@pytest.mark.parametrize(
    ("entry", "value"), [("arms", None), ("sets", [{"name": "rded"}]), ("dataset", {"name": "toy"}), ("notes", None)]
)
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, entry: str, value: Any) -> None:
    with pytest.raises(StoreError, match="Run the command that made it again"):
        render_html(make_study(tmp_path / "store", **{entry: value}))


def test_what_is_no_study_is_refused(study: Path) -> None:
    with pytest.raises(StoreError, match="of kind 'study'"):
        write_report(study.parent.parent / "distilled" / "rded")
    with pytest.raises(StoreError, match="There is nothing at"):
        write_report(study.parent / "absent")


def test_a_study_without_results_teacher_or_labels_still_makes_a_page(tmp_path: Path) -> None:
    empty = {"arms": [], "comparisons": [], "labels_shown": [], "sets": [], "notes": [], "teacher": None}
    text = Outline(render_html(make_study(tmp_path / "store", **empty))).text
    assert "This study holds no results yet." in text
    assert "This study has no teacher." in text


def test_a_large_set_is_cut_and_says_what_is_left_out() -> None:
    sheet = contact_sheet(make_set(make_info(classes=23), ipc=12))
    assert len(sheet.strips) == 20
    assert {strip.images for strip in sheet.strips} == {10}
    assert "76 images not shown" in sheet.left_out
    assert "276 images of 23 classes" in sheet.left_out


def test_large_colour_images_are_shrunk_for_the_page() -> None:
    distilled = make_set(make_info(classes=2, channels=3, size=2 * LARGEST_SIDE), ipc=1)
    sheet = contact_sheet(distilled)
    assert sheet.shrunk
    assert (sheet.strips[0].width, sheet.strips[0].height) == (LARGEST_SIDE, LARGEST_SIDE)
    assert sheet.left_out == ""
    assert picture(distilled.images[0]).startswith("data:image/png;base64,")


@pytest.mark.chromium
def test_browser_draws_every_plot(study: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on PATH")
    page = write_report(study).html
    dom = dump_dom(browser, page, tmp_path)
    plots = re.findall(r'id="plot-([a-z0-9-]+)"', dom)
    assert plots == [
        "accuracy",
        *(f"{kind}-{n}" for n in range(3) for kind in ("accuracy", "loss")),
        "teacher-accuracy",
        "teacher-loss",
        "bytes",
    ]
    body = dom[dom.index("<body") :]
    drawn = re.findall(r'<svg class="main-svg"', body)
    assert len(drawn) >= len(plots)


def dump_dom(browser: str, page: Path, tmp_path: Path) -> str:
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
    )
    options = (f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000", "--window-size=1200,4000")
    command = [browser, *flags, *options]
    shot = tmp_path / "shot.png"
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, timeout=120, check=True, text=True
    )
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
    assert shot.stat().st_size > 10_000
    return done.stdout


def test_pictures_that_differ_by_rounding_are_the_same() -> None:
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    rounded = images.clone()
    rounded[0, 0, 0, 0] = images[0, 0, 0, 0].bitwise_xor(7)  # in bfloat16 single pixels differ by several levels
    assert _alike(images, rounded)
    assert not _alike(images, images.flip(0))
    assert not _alike(images, images[:2])
