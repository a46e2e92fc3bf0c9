"""How a subnet's tensors come from the shared ones. One file per scheme."""

from supernets.schemes.kernel_transform import KernelTransform
from supernets.schemes.sharing import Scheme
from supernets.schemes.slice import Slice

__all__ = ["KernelTransform", "Scheme", "Slice"]
