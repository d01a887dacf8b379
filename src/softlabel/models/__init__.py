"""Models built from a spec: ConvNet-D, ResNets, MLP, Vision Transformer, and those of other packages.

Knows nothing of data sets.
"""

from softlabel.models._backbones import BACKBONES, Backbone, absolute, load_backbone
from softlabel.models._bridge import Bridged, optional_package
from softlabel.models._build import MODELS, Classifier, as_classifier, build_model, check_model, model_facts
from softlabel.models._convnet import ConvNet
from softlabel.models._mlp import Mlp
from softlabel.models._norms import channels_last
from softlabel.models._resnet import ResNet
from softlabel.models._vit import Vit

__all__ = [
    "BACKBONES",
    "MODELS",
    "Backbone",
    "Bridged",
    "Classifier",
    "ConvNet",
    "Mlp",
    "ResNet",
    "Vit",
    "absolute",
    "as_classifier",
    "build_model",
    "channels_last",
    "check_model",
    "load_backbone",
    "model_facts",
    "optional_package",
]
