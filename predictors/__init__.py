"""What a network will cost on a device: targets, measurement, and estimates from a spec sheet."""

from predictors.devices import Device, spec_sheet
from predictors.measure import Measurement, Timing, measure_module, measure_modules
from predictors.roofline import RooflineTarget
from predictors.target import Provenance, Target

__all__ = [
    "Device",
    "Measurement",
    "Provenance",
    "RooflineTarget",
    "Target",
    "Timing",
    "measure_module",
    "measure_modules",
    "spec_sheet",
]
