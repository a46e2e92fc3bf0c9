"""What can be built: choices, archs, encoders, cost counting, and the spaces themselves."""

from search_spaces.arch import Arch, Option
from search_spaces.choice import Choice
from search_spaces.cost import Costs
from search_spaces.errors import InputError, SpaceError, VerificationError, did_you_mean
from search_spaces.rules import centre, heads, index_set, leading
from search_spaces.space import Population, SearchSpace
from search_spaces.trace import Layer, trace

__all__ = [
    "Arch",
    "Choice",
    "Costs",
    "InputError",
    "Layer",
    "Option",
    "Population",
    "SearchSpace",
    "SpaceError",
    "VerificationError",
    "centre",
    "did_you_mean",
    "heads",
    "index_set",
    "leading",
    "trace",
]
