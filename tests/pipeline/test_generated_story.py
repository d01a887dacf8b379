"""A recipe that trains a generator, its report, and sets of all that a time allows."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softlabel.core import ConfigError, SoftlabelError
from softlabel.evaluation import (
    Comparison,
    DataOptions,
    GeneratorOptions,
    Recipe,
    SetOptions,
    TeacherOptions,
    TimedSet,
    find_protocol,
    plan_recipe,
    run_recipe,
)
from softlabel.generate import AutoencoderConfig, GeneratorConfig
from softlabel.recipes import RECIPES
from softlabel.report import render_html
from softlabel.store import Store, read_artifact
from softlabel.training import TEACHER_PROTOCOL, Execution

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of diffusers, under numpy 2
    pytest.mark.filterwarnings("ignore::softlabel.core.SoftlabelWarning"),  # teachers at chance
    pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs softlabel[generate]"),
]
CPU = Execution("cpu", "fp32")
ARCH = "convnet-1:width=4"


def recipe(folder: Path, **changes: Any) -> Recipe:
    story = Recipe(
        name="tiny-generated",
        summary="for tests",
        data=DataOptions(spec=f"imagefolder:{folder}", image_size=(16, 16)),
        teacher=TeacherOptions(arch=ARCH, protocol=replace(TEACHER_PROTOCOL, epochs=1, batch=8)),
        generator=GeneratorOptions(
            autoencoder=AutoencoderConfig(width=8, epochs=1, batch=8),
            denoiser=GeneratorConfig(denoiser="dit:width=16,depth=1,heads=2,patch=2", epochs=1, batch=8),
        ),
        sets=(
            SetOptions(name="random", method="random", ipc=2),
            SetOptions(name="generated", method="latent-diffusion:steps=2", ipc=4),
            SetOptions(name="generated, IPC 5", method="latent-diffusion:steps=2", ipc=5),
            SetOptions(name="best", method="latent-diffusion:steps=2,how=best,candidates=2", ipc=2),
        ),
        timed=(TimedSet(name="all of a second", method="latent-diffusion:steps=2,batch=4", seconds=1),),
        comparison=Comparison(
            name="tiny-generated",
            title="Generated",
            protocol=find_protocol("gift", epochs=1),
            students=(ARCH,),
            losses=("ce", "gift"),
            seeds=(0, 1),
        ),
    )
    return replace(story, **changes)


@pytest.fixture(scope="module")
def told(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Store, Path]:
    story, store = recipe(pictures), Store(tmp_path_factory.mktemp("generated"))
    return story, store, run_recipe(story, store=store, execution=CPU, command="softlabel run tiny-generated")


def test_the_whole_story_and_its_facts(told: tuple[Recipe, Store, Path]) -> None:
    _, _, study = told
    meta = read_artifact(study, "study").meta
    assert len(meta["arms"]) == 10
    assert meta["generator"]["psnr"] > 0
    assert 0 <= meta["generator"]["accuracy_reconstructed"] <= 1
    facts = {one["set"]: one for one in meta["samples"]}
    assert list(facts) == ["generated", "generated, IPC 5", "best", "all of a second"]
    for one in facts.values():
        assert 0 <= one["agreement"] <= 1
        assert one["frechet"] >= 0
        assert one["nearest"] > 0
        assert len(one["shown"]) == len(one["distances"]) == len(one["classes"])
    pictures = read_artifact(study, "study").tensors("samples.safetensors")
    assert pictures["0/samples"].shape == pictures["0/nearest"].shape
    assert facts["generated"]["images"] == 4 * len(meta["dataset"]["class_names"])


def test_the_nearest_image_and_its_distance_are_told_of_the_same_image(told: tuple[Recipe, Store, Path]) -> None:
    _, _, study = told
    facts = read_artifact(study, "study").meta["samples"][0]
    pictures = read_artifact(study, "study").tensors("samples.safetensors")
    apart = (pictures["0/samples"].float() - pictures["0/nearest"].float()).square().flatten(1).mean(dim=1).sqrt()
    assert facts["distances"] == pytest.approx(apart.tolist(), abs=0.01)


def test_the_report_shows_them(told: tuple[Recipe, Store, Path]) -> None:
    page = render_html(told[2])
    assert '<section id="samples">' in page
    # Those of "generated", "best" and the timed set, whose noise is its own; IPC 5 begins as IPC 4 does.
    assert page.count('class="samples"') == 3
    assert page.count("are those of <code>generated</code>") == 1
    assert "nearest real image to each" in page
    assert " dB from them; the teacher is right on " in page
    assert "taken for<br>their class" in page


def test_without_a_teacher_no_columns_are_its(told: tuple[Recipe, Store, Path], tmp_path: Path) -> None:
    shutil.copytree(told[1].root, tmp_path / "store")
    study = tmp_path / "store" / told[2].relative_to(told[1].root)
    manifest = json.loads((study / "manifest.json").read_text())
    for facts in manifest["meta"]["samples"]:
        facts |= {"agreement": None, "frechet": None, "frechet_real": None}
    (study / "manifest.json").write_text(json.dumps(manifest))
    page = render_html(study)
    assert "none was given" in page
    assert "taken for<br>their class" not in page


def test_a_report_without_the_pictures(told: tuple[Recipe, Store, Path], tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(told[1].root, copy)
    study = copy / told[2].relative_to(told[1].root)
    (study / "samples.safetensors").unlink()
    with pytest.raises(Exception, match=r"samples\.safetensors"):
        render_html(study)


def test_a_plan_knows_what_is_there(told: tuple[Recipe, Store, Path], tmp_path: Path) -> None:
    story, store, _ = told
    data = story.data.load()
    after = plan_recipe(story, data, store=store, execution=CPU)
    assert all(line.done == line.total for line in after), [line for line in after if line.done < line.total]
    before = plan_recipe(story, data, store=Store(tmp_path), execution=CPU)
    assert [line.what for line in before] == [line.what for line in after]
    assert not any(line.done for line in before)
    assert all(line.seconds > 0 for line in before if "random" not in line.what)
    assert not list(tmp_path.iterdir())


def test_sets_that_need_a_generator_need_one(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="needs a generator, and the recipe 'tiny-generated' trains none"):
        recipe(pictures, generator=None)


def test_a_generator_that_cannot_be_is_told_before_the_teacher_is_trained(pictures: Path, tmp_path: Path) -> None:
    odd = GeneratorOptions(autoencoder=AutoencoderConfig(factor=32), denoiser=GeneratorConfig())
    with pytest.raises(ConfigError, match="halves images down to a whole number"):
        run_recipe(recipe(pictures, generator=odd), store=Store(tmp_path), execution=CPU, command="x")
    many = GeneratorOptions(autoencoder=AutoencoderConfig(batch=10_000), denoiser=GeneratorConfig())
    with pytest.raises(ConfigError, match="A batch of 10000 is larger"):
        run_recipe(recipe(pictures, generator=many), store=Store(tmp_path), execution=CPU, command="x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "ipc", "message"),
    [
        ("latent-diffusion:sampler=euler", 1, "does not go with the schedule"),
        ("latent-diffusion:steps=0", 1, "takes 1 to 1000 steps"),
        ("latent-diffusion:how=prototypes", 500, "500"),
    ],
)
def test_sets_that_cannot_be_made_are_told_before_the_teacher_is_trained(
    pictures: Path, tmp_path: Path, method: str, ipc: int, message: str
) -> None:
    odd = recipe(pictures, sets=(SetOptions(name="odd", method=method, ipc=ipc),), timed=())
    with pytest.raises(SoftlabelError, match=message):
        run_recipe(odd, store=Store(tmp_path), execution=CPU, command="x")
    with pytest.raises(SoftlabelError, match=message):
        plan_recipe(odd, odd.data.load(), store=Store(tmp_path), execution=CPU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("random", "Images are generated by"),
        ("latent-diffusion:how=best", "taken as they come"),
        ("latent-diffusion:stepz=3", "has no option 'stepz'"),
    ],
)
def test_what_a_time_cannot_be_given_to(method: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimedSet(name="x", method=method, seconds=1)


@pytest.mark.parametrize("seconds", [0, float("inf"), float("nan")])
def test_a_time_must_pass_and_end(seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds above 0"):
        TimedSet(name="x", method="latent-diffusion", seconds=seconds)


def test_the_challenge_s_generative_track(
    told: tuple[Recipe, Store, Path], softlabel: Any, made: Any, tmp_path: Path
) -> None:
    story, store, _ = told
    path = next(path for path in (store.root / "teachers").iterdir() if "-generator" in path.name)
    words = (
        *("evaluate", "--data", story.data.spec, "--image-size", "16x16", "--no-baselines", "--student", ARCH),
        *("--timed", f"latent-diffusion:generator={path},steps=2,batch=4", "--seconds", "1"),
        *("--protocol", "challenge-2024-generative", "--epochs", "1", "--seeds", "2", "--store", tmp_path),
    )
    plan = softlabel(*words, "--dry-run", "--json").json["plan"]
    assert [(line["done"], line["total"]) for line in plan] == [(0, 2), (0, 2)]
    study = softlabel(*words, "--json")
    assert study.code == 0, study.err
    assert [arm["set"] for arm in study.json["arms"]] == ["all of 1 s"]
    fresh = softlabel(*words[:-6], "--epochs", "1", "--seeds", "2", "--store", tmp_path, "--protocol", "hard")
    assert fresh.code == 0, fresh.err
    folders = [path.name for path in (tmp_path / "distilled").iterdir()]
    assert sorted(name.rsplit("-", 1)[0] for name in folders) == sorted(
        {name.rsplit("-", 1)[0] for name in folders}
    )  # made once, one per seed, for both protocols
    assert len(folders) == 2
    for spec, message in (
        ("latent-diffusion:steps=2", "--timed needs a generator"),
        ("random", "Images are generated by the method latent-diffusion"),
    ):
        said = softlabel("evaluate", "--timed", spec, "--data", story.data.spec, "--store", tmp_path)
        assert (said.code, message in said.error) == (2, True), said.err


@pytest.mark.parametrize("name", [name for name in RECIPES if "generated" in name])
def test_recipes_are_whole(name: str) -> None:
    story = RECIPES[name]()
    assert story.name == name
    assert story.generator is not None
    assert set(story.comparison.losses) >= {"ce", "gift"}
    assert [one.ipc for one in story.sets if one.method == "random"]
