"""softlabel: distil a labelled image dataset into a tiny training set whose labels do the work."""

from softlabel._version import __version__

__all__ = ["__version__"]
