"""Feature maps -> feature maps. Add a neck: a class with `.channels` and `.strides`, and one line in the table."""

from tinyyolo.necks.fpn import FPN
from tinyyolo.necks.hrfpn import HRFPN

NECKS = {"fpn": FPN, "hrfpn": HRFPN}
