"""Pictures and labels for training and searching: one `load_data` for every source."""

from nas.data.dataset import Data
from nas.data.load import load_data

__all__ = ["Data", "load_data"]
