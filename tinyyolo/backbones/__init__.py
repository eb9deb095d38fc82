"""Image -> feature maps. Add a backbone: a class with `.channels` and `.strides`, and one line in the table."""

from tinyyolo.backbones.darknet import Darknet
from tinyyolo.backbones.detectors_resnet import DetectoRSResNet
from tinyyolo.backbones.hrnet import HRNet
from tinyyolo.backbones.resnet import ResNet
from tinyyolo.backbones.trident import TridentResNet

BACKBONES = {
    "resnet": ResNet,
    "hrnet": HRNet,
    "detectors_resnet": DetectoRSResNet,
    "darknet": Darknet,
    "trident": TridentResNet,
}
