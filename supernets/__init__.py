"""Shared weights: schemes, sampling policies, recipes, and the trainer."""

from supernets.schemes import KernelTransform, Scheme, Slice
from supernets.supernet import Supernet

__all__ = ["KernelTransform", "Scheme", "Slice", "Supernet"]
