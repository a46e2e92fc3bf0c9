"""Images and text for training and searching: one `load_data` for every source."""

from nas.data.dataset import Data
from nas.data.images import ImageData
from nas.data.load import load_data
from nas.data.text import TextData

__all__ = ["Data", "ImageData", "TextData", "load_data"]
