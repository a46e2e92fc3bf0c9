"""How a subnet's tensors come from the shared ones. One file per scheme."""

from supernets.schemes.kernel_transform import KernelTransform
from supernets.schemes.layered import LayeredScheme
from supernets.schemes.linear_expansion import LinearExpansion
from supernets.schemes.sharing import Scheme
from supernets.schemes.slice import Slice
from supernets.schemes.stage_shared import StageShared

__all__ = ["KernelTransform", "LayeredScheme", "LinearExpansion", "Scheme", "Slice", "StageShared"]
