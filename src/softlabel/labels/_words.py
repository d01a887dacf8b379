"""Class names as a model that reads texts is to be given them."""

import re
from functools import cache
from importlib.resources import files

from softlabel.core import ConfigError

_WORDNET_ID = re.compile(r"n\d{8}")


def prompts(class_names: tuple[str, ...], prompt: str) -> list[str]:
    """The prompt with every class's words in place of `{}`: its name, or of a WordNet id the first word that it means.

    The words of Tiny-ImageNet's 200 ids come with the package (WordNet 3.0, Princeton University).

    Raises:
        ConfigError: an id without words here, of which a text says nothing.
    """
    return [prompt.replace("{}", _words_of(name)) for name in class_names]


def _words_of(name: str) -> str:
    if not _WORDNET_ID.fullmatch(name):
        return name.replace("_", " ")
    if name not in _wordnet():
        raise ConfigError(
            f"The class name {name!r} is a WordNet id, and the words for it are not known here (they are for "
            f"Tiny-ImageNet's). Name the classes by words, or take text=false."
        )
    return _wordnet()[name]


@cache
def _wordnet() -> dict[str, str]:
    lines = (files("softlabel.labels") / "wordnet.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)
