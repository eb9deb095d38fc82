"""Feature maps -> feature maps. Add a neck: a class with `.channels` and `.strides`, and one line in the table."""

from tinyyolo.necks.fpn import FPN
from tinyyolo.necks.hrfpn import HRFPN
from tinyyolo.necks.identity import Identity
from tinyyolo.necks.pan import PAN
from tinyyolo.necks.rfp import RFP
from tinyyolo.necks.ssd import SSDNeck
from tinyyolo.necks.yolov3 import YOLOv3Neck

NECKS = {"fpn": FPN, "hrfpn": HRFPN, "rfp": RFP, "pan": PAN, "identity": Identity}
NECKS |= {"yolov3": YOLOv3Neck, "ssd": SSDNeck}
