# Scripts outside import TinyDataset from here, where it once stood.
from tinyyolo.datasets.train.dataset import TinyDataset as TinyDataset
