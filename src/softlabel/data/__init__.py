"""Real data sets, by name or path, as uint8 tensors with an explicit class order."""

from softlabel.data._fetch import fetch_dataset
from softlabel.data._load import load_dataset
from softlabel.data._matched import read_class_folders
from softlabel.data._search import FoundDataset, cache_root, find_datasets, search_path

__all__ = [
    "FoundDataset",
    "cache_root",
    "fetch_dataset",
    "find_datasets",
    "load_dataset",
    "read_class_folders",
    "search_path",
]
