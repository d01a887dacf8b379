"""Where soft labels come from, and what they cost to keep."""

from softlabel.labels._codecs import CODECS, Codec, FittedCodec
from softlabel.labels._coded import SEED_BYTES, CodedLabels, coded_labels
from softlabel.labels._edits import (
    EDITS,
    Edit,
    EditedLabels,
    edited_labels,
    entropy,
    jensen_shannon,
)
from softlabel.labels._files import load_labels, save_labels
from softlabel.labels._hello import (
    HelloConfig,
    check_projector,
    labeler_features,
    load_labeler,
    stand_in_labeler,
    weak_stops,
)
from softlabel.labels._label_store import SHARD_ROWS, LabelStore, StoredLabels, load_label_store, write_label_store
from softlabel.labels._label_views import VIEWS
from softlabel.labels._learned import Learning, learn_labels, learning_step_seconds
from softlabel.labels._reading import read_from, read_labels, unread
from softlabel.labels._replay import REPLAY_BYTES, ReplayedLabels, replay_bytes, replayed
from softlabel.labels._set_labeler import set_labeler_path, train_set_labeler
from softlabel.labels._small_clip import SmallClipConfig, check_small_clip, train_small_clip
from softlabel.labels._sources import (
    FixedLabels,
    HardLabels,
    OnlineLabels,
    fixed_labels,
    make_labels,
    online_labels,
)
from softlabel.labels._spec import LabelSpec
from softlabel.labels._teach_labeler import labeler_path, labeler_step_seconds, train_labeler
from softlabel.labels._wrapped import WrappedLabels

__all__ = [
    "CODECS",
    "EDITS",
    "REPLAY_BYTES",
    "SEED_BYTES",
    "SHARD_ROWS",
    "VIEWS",
    "Codec",
    "CodedLabels",
    "Edit",
    "EditedLabels",
    "FittedCodec",
    "FixedLabels",
    "HardLabels",
    "HelloConfig",
    "LabelSpec",
    "LabelStore",
    "Learning",
    "OnlineLabels",
    "ReplayedLabels",
    "SmallClipConfig",
    "StoredLabels",
    "WrappedLabels",
    "check_projector",
    "check_small_clip",
    "coded_labels",
    "edited_labels",
    "entropy",
    "fixed_labels",
    "jensen_shannon",
    "labeler_features",
    "labeler_path",
    "labeler_step_seconds",
    "learn_labels",
    "learning_step_seconds",
    "load_label_store",
    "load_labeler",
    "load_labels",
    "make_labels",
    "online_labels",
    "read_from",
    "read_labels",
    "replay_bytes",
    "replayed",
    "save_labels",
    "set_labeler_path",
    "stand_in_labeler",
    "train_labeler",
    "train_set_labeler",
    "train_small_clip",
    "unread",
    "weak_stops",
    "write_label_store",
]
