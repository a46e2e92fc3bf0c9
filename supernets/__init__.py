"""Shared weights: schemes, sampling policies, recipes, and the trainer."""

from supernets.schemes import KernelTransform, LinearExpansion, Scheme, Slice, StageShared
from supernets.supernet import Supernet

__all__ = ["KernelTransform", "LinearExpansion", "Scheme", "Slice", "StageShared", "Supernet"]
