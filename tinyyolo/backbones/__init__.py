"""Image -> feature maps. Add a backbone: a class with `.channels` and `.strides`, and one line in the table."""

from tinyyolo.backbones.darknet import Darknet
from tinyyolo.backbones.darknet53 import Darknet53
from tinyyolo.backbones.detectors_resnet import DetectoRSResNet
from tinyyolo.backbones.hrnet import HRNet
from tinyyolo.backbones.resnet import ResNet
from tinyyolo.backbones.trident import TridentResNet
from tinyyolo.backbones.vgg import VGG

BACKBONES = {"resnet": ResNet, "hrnet": HRNet, "detectors_resnet": DetectoRSResNet, "darknet": Darknet}
BACKBONES |= {"darknet53": Darknet53, "vgg": VGG, "trident": TridentResNet}
