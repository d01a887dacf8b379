"""Recipes as they are written down; tests/pipeline runs one."""

from dataclasses import replace

import pytest
import torch

from softlabel.core import ConfigError, UnknownNameError, fingerprint, plain
from softlabel.data import find_datasets
from softlabel.distill import find_method
from softlabel.evaluation import PROTOCOLS, Recipe, SetOptions
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.recipes import RECIPES, Changes, change, find_recipe, find_study

SHAPES = {  # what the data of a recipe look like: (channels, height, width), classes
    "digits": ((1, 8, 8), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "tiny-imagenet-200": ((3, 64, 64), 200),
}


@pytest.fixture(params=sorted(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return find_recipe(request.param)


def test_names_agree(recipe: Recipe) -> None:
    assert RECIPES[recipe.name]() == recipe
    assert recipe.comparison.name == recipe.name
    assert recipe.summary
    assert recipe.comparison.title


def test_recipes_differ() -> None:
    recipes = [make() for make in RECIPES.values()]
    assert len({fingerprint(recipe) for recipe in recipes}) == len(recipes)
    assert len({recipe.comparison.title for recipe in recipes}) == len(recipes)
    assert len({recipe.summary for recipe in recipes}) == len(recipes)


def test_a_recipe_is_plain_data(recipe: Recipe) -> None:
    assert plain(recipe)["comparison"]["students"] == list(recipe.comparison.students)


def test_the_data_are_known(recipe: Recipe) -> None:
    assert recipe.data.spec in {found.name for found in find_datasets()}


def test_set_names_are_unique_and_methods_exist(recipe: Recipe) -> None:
    names = [options.name for options in recipe.sets]
    assert len(set(names)) == len(names)
    for options in recipe.sets:
        find_method(options.method)
        assert options.ipc >= 1


def test_baselines_come_along(recipe: Recipe) -> None:
    """Random real images of the same IPC, hard labels and the full data set, under the same protocol."""
    assert {options.ipc for options in recipe.sets if options.method == "random"} == {o.ipc for o in recipe.sets}
    assert "ce" in recipe.comparison.losses
    assert recipe.comparison.full_epochs >= 1
    assert any(Loss.parse(loss).needs_teacher for loss in recipe.comparison.losses)


def test_there_are_enough_seeds_for_an_interval(recipe: Recipe) -> None:
    assert len(recipe.comparison.seeds) >= 3


def test_models_fit_the_images(recipe: Recipe) -> None:
    shape, classes = SHAPES[recipe.data.spec]
    for arch in (recipe.teacher.arch, *recipe.comparison.students):
        model = build_model(arch, image_shape=shape, classes=classes, seed=0).eval()
        assert model(torch.zeros(1, *shape)).shape == (1, classes)


def test_the_protocol_is_a_named_one(recipe: Recipe) -> None:
    assert recipe.comparison.protocol.name.partition(" (")[0] in {*PROTOCOLS, "gift, shifted digits"}


def test_seeds_can_be_chosen(recipe: Recipe) -> None:
    assert recipe.with_seeds(None, None) == recipe
    assert recipe.with_seeds(5, None).comparison.seeds == (5, 6, 7)
    assert recipe.with_seeds(None, 1).comparison.seeds == (0,)
    assert recipe.with_seeds(2, 2).comparison.seeds == (2, 3)
    assert recipe.with_seeds(2, 2).sets == recipe.sets
    for count in (0, -1):
        with pytest.raises(ConfigError, match="at least one seed, and got none"):
            recipe.with_seeds(None, count)


def test_epochs_can_be_chosen(recipe: Recipe) -> None:
    assert recipe.with_epochs(None) is recipe
    short = recipe.with_epochs(2)
    assert short.comparison.protocol.epochs == 2
    assert short.comparison.protocol.name == f"{recipe.comparison.protocol.name.partition(' (')[0]} (2 epochs)"
    assert short.teacher == recipe.teacher
    with pytest.raises(ConfigError, match="Got 0 instead"):
        recipe.with_epochs(0)


def test_an_unknown_recipe_lists_the_recipes() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_recipe("digits-quik")
    assert "Did you mean 'digits-quick'" in str(caught.value)
    assert all(name in str(caught.value) for name in RECIPES)


def test_numbers_of_images_must_differ() -> None:
    with pytest.raises(ConfigError, match=r"must differ\. Got 1, 1"):
        change(find_study("losses"), Changes(ipc=(1, 1)))


def test_steps_are_in_the_title() -> None:
    changed = change(find_study("losses"), Changes(steps=3))
    assert changed.comparison.title == "Every loss on every set, in 3 incremental steps"
    usual = find_study("continual")
    assert change(usual, Changes(steps=10)).comparison.title == usual.comparison.title


def test_somebody_s_own_method_waits_for_no_generator() -> None:
    own = SetOptions(name="own", method="softlabel.distill._coresets:random_images", ipc=1)
    assert find_recipe("digits-quick").waiting == ()
    assert replace(find_recipe("digits-quick"), sets=(own,)).waiting == ()
    assert {ipc for _, ipc in find_recipe("fashion-mnist-generated").waiting} == {1, 10, 50}
