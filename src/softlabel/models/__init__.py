"""ConvNet-D and ResNets, built from a spec. Knows nothing of data sets."""

from softlabel.models._build import MODELS, Classifier, as_classifier, build_model, check_model
from softlabel.models._convnet import ConvNet
from softlabel.models._resnet import ResNet

__all__ = ["MODELS", "Classifier", "ConvNet", "ResNet", "as_classifier", "build_model", "check_model"]
