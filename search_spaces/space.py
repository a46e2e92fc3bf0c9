"""A search space: choices, and one function that builds the plain network of an arch.

A population is an index matrix [n, choices] of int16: entry (i, j) is the position of choice j's option in
arch i, or -1 where the choice is not in force. Everything on populations is NumPy; no module is built to
count or to draw.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search_spaces.arch import Arch, Option
from search_spaces.channel_group import ChannelGroup
from search_spaces.choice import Choice
from search_spaces.cost import Costs, layer_costs
from search_spaces.errors import SpaceError, did_you_mean
from search_spaces.rules import Rule
from search_spaces.table import AdditiveTable, Measure
from search_spaces.trace import Layer, trace

Population: TypeAlias = NDArray[np.int16]
RESOLUTION = "resolution"  # the choice of this name, where there is one, sets the input's height and width


class SearchSpace:
    """A family of ordinary networks.

    Args:
        name: what users call it; `"mobilenet_v3"` or `"my_package.my_module:space"`.
        choices: the decisions; a conditional one comes after those it depends on.
        build: arch -> plain `nn.Module`, with no elastic layers and nothing hidden.
        input_shape: (C, H, W) of one input; a choice named "resolution" replaces H and W. (T,) for tokens.
        input_dtype: of the input; int64 for tokens, which are below the number of classes.
        rules: how fused tensors share their entries, by pattern of the tensor's dotted name (`*` matches
            anything). A tensor without a rule shares its leading entries, a convolution its kernel's centre.
        channel_groups: channels that several tensors have in common and that may change places together.
        settings: the JSON-able keyword arguments that made the space, so that a run can make it again.

    Safe to share between threads.

    Raises:
        SpaceError: duplicate names, or a condition on a choice that does not come before.

    Example: any module with sizes in its constructor becomes a space in three lines.

        choices = [Choice("depth", (6, 9, 12)), Choice("embed_dim", (96, 144, 192))]
        rules = {"blocks.*.attn.qkv.*": heads(3)}
        space = SearchSpace("my_vit", choices, lambda arch: VisionTransformer(num_heads=3, **arch),
                            input_shape=(3, 224, 224), rules=rules)
    """

    def __init__(
        self,
        name: str,
        choices: Sequence[Choice],
        build: Callable[[Arch], nn.Module],
        *,
        input_shape: Sequence[int],
        input_dtype: torch.dtype = torch.float32,
        rules: Mapping[str, Rule] | None = None,
        channel_groups: Sequence[ChannelGroup] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.choices = tuple(choices)
        self.build = build
        self.rules = dict(rules or {})
        self.channel_groups = tuple(channel_groups)
        self.settings = dict(settings or {})
        self._input_shape = tuple(input_shape)
        self.input_dtype = input_dtype
        self._column = {choice.name: j for j, choice in enumerate(self.choices)}
        if len(self._column) != len(self.choices):
            names = [choice.name for choice in self.choices]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise SpaceError(f"space {name!r} has two choices named {', '.join(twice)}")
        self._options = np.array([len(choice.options) for choice in self.choices], dtype=np.int64)
        self._offsets = np.append(0, np.cumsum(self._options))
        self._groups = self._group_by_condition()
        self.layers = lru_cache(maxsize=1024)(self._trace)

    def __repr__(self) -> str:
        size = f"{self.size:.3g}" if self.size < 1e300 else f"1e{math.log10(self.size):.0f}"
        return f"SearchSpace({self.name!r}, {len(self.choices)} choices, {size} archs)"

    def __call__(self) -> SearchSpace:
        """This space: an object stands where a function that makes one is expected."""
        return self

    # -- single archs --------------------------------------------------------------------------------------

    def arch(self, assignment: Mapping[str, Option]) -> Arch:
        """The canonical arch of an assignment: options checked, choices that are not in force dropped.

        Raises:
            SpaceError: an unknown choice, an option that is none, or a choice in force that is missing.
        """
        for given in assignment:
            if given not in self._column:
                hint = did_you_mean(given, self._column)
                raise SpaceError(f"{given!r} is not a choice of {self.name!r}{hint}")
        kept: dict[str, Option] = {}
        for choice in self.choices:
            if all(parent in kept and kept[parent] in allowed for parent, allowed in choice.when.items()):
                if choice.name not in assignment:
                    raise SpaceError(f"arch of {self.name!r} lacks {choice.name!r}, which is in force")
                kept[choice.name] = choice.options[choice.position(assignment[choice.name])]
        return Arch(kept)

    @cached_property
    def largest(self) -> Arch:
        """Every choice at its last option."""
        return self.arch({choice.name: choice.options[-1] for choice in self.choices})

    @cached_property
    def smallest(self) -> Arch:
        """Every choice at its first option."""
        return self.arch({choice.name: choice.options[0] for choice in self.choices})

    def input_shape(self, arch: Arch) -> tuple[int, ...]:
        """(C, H, W) of one input of this arch, (T,) where inputs are tokens."""
        if RESOLUTION in arch:
            side = arch.integer(RESOLUTION)
            return (self._input_shape[0], side, side)
        return self._input_shape

    @property
    def channels(self) -> int | None:
        """Channels of the input; None where it is no image."""
        return self._input_shape[0] if len(self._input_shape) == 3 else None

    @cached_property
    def image_size(self) -> int | None:
        """Height of the largest input; None where it is no image."""
        return self.input_shape(self.largest)[-1] if len(self._input_shape) == 3 else None

    @cached_property
    def classes(self) -> int:
        """Width of the network's output: classes of images, vocabulary of tokens."""
        return next(layer.output[-1] for layer in reversed(self.layers(self.smallest)) if layer.output)

    @property
    def reads_tokens(self) -> bool:
        """Whether the networks take whole numbers, not pixels."""
        return self.input_dtype is torch.int64

    def skeleton(self, arch: Arch) -> nn.Module:
        """`build(arch)` on the meta device: structure without values."""
        with torch.device("meta"):
            return self.build(arch)

    def example(self, arch: Arch, batch: int = 1, device: str | torch.device = "cpu") -> Tensor:
        """Zeros of the shape and type of a batch of inputs, [batch, C, H, W] or [batch, T]."""
        return torch.zeros(batch, *self.input_shape(arch), dtype=self.input_dtype, device=device)

    def _trace(self, arch: Arch) -> tuple[Layer, ...]:
        """What the network of `arch` computes, layer by layer, at batch 1 (remembered)."""
        return trace(self.skeleton(arch), self.example(arch, device="meta"))

    # -- populations ---------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """How many archs there are, exactly."""
        return prod(self._count(component) for component in self._components())

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that name this space: its name, settings and choices."""
        text = json.dumps(
            [
                self.name,
                self.settings,
                [[c.name, c.options, dict(c.when)] for c in self.choices],
                self._input_shape,
                self.input_dtype,
            ],
            sort_keys=True,
            default=str,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def sample(self, n: int, rng: np.random.Generator) -> Population:
        """n archs, each choice in force drawn uniformly. [n, choices]; duplicates are possible."""
        drawn = rng.integers(0, self._options, size=(n, len(self.choices)), dtype=np.int16)
        return self._drop_inactive(drawn)

    def canonical(self, population: NDArray[Any], rng: np.random.Generator | None = None) -> Population:
        """The population with choices that are not in force at -1, and missing ones that are in force filled.

        Missing ones are drawn with `rng`, or take the last option when there is none.
        """
        fill = self._options - 1 if rng is None else rng.integers(0, self._options, size=population.shape)
        return self._drop_inactive(np.where(population < 0, fill, population).astype(np.int16))

    def mutate(
        self, population: Population, rng: np.random.Generator, rate: float | None = None
    ) -> Population:
        """Each choice in force takes another of its options with probability `rate` (default: 1 / how many).

        Choices that come into force are drawn uniformly.
        """
        active = population >= 0
        chance = 1.0 / np.maximum(active.sum(axis=1, keepdims=True), 1) if rate is None else rate
        hit = active & (rng.random(population.shape) < chance) & (self._options > 1)
        step = rng.integers(1, np.maximum(self._options, 2), size=population.shape)
        other = (population + step) % self._options
        return self.canonical(np.where(hit, other, population), rng)

    def crossover(
        self, a: Population, b: Population, rng: np.random.Generator, swap: float = 0.5
    ) -> Population:
        """Uniform crossover, row by row: each choice comes from `b` with probability `swap`, else from `a`.

        A choice that is in force in the child comes from the parent where it is in force.
        """
        from_b = rng.random(a.shape) < swap
        first, second = np.where(from_b, b, a), np.where(from_b, a, b)
        return self.canonical(np.where(first < 0, second, first), rng)

    def index(self, archs: Iterable[Mapping[str, Option]]) -> Population:
        """The index matrix of archs, [n, choices]. Raises `SpaceError` for what is no arch of this space."""
        rows = []
        for arch in archs:
            arch = self.arch(arch)
            rows.append([c.position(arch[c.name]) if c.name in arch else -1 for c in self.choices])
        return np.array(rows, dtype=np.int16).reshape(len(rows), len(self.choices))

    def archs(self, population: Population) -> list[Arch]:
        """The archs of an index matrix in canonical form."""
        choices = self.choices
        return [
            Arch({c.name: c.options[i] for c, i in zip(choices, row, strict=True) if i >= 0})
            for row in population.tolist()
        ]

    def one_hot(self, population: Population) -> NDArray[np.float32]:
        """[n, sum of options]: 1 for the option taken; all zero for a choice that is not in force."""
        out = np.zeros((len(population), int(self._offsets[-1]) + 1), dtype=np.float32)
        columns = np.where(population < 0, self._offsets[-1], population + self._offsets[:-1])
        out[np.arange(len(population))[:, None], columns] = 1.0
        return out[:, :-1]

    def columns(self) -> list[str]:
        """Names of the columns of `one_hot`: "choice=option"."""
        return [f"{choice.name}={option}" for choice in self.choices for option in choice.options]

    # -- what archs cost -----------------------------------------------------------------------------------

    def table(self, measure: Measure, columns: int = 1) -> AdditiveTable:
        """A table that sums `measure` over the parts of any arch of this space, for whole populations.

        `measure(layers)` maps part names to a number, or to `columns` numbers. See `AdditiveTable`.
        """
        return AdditiveTable(self, measure, columns)

    @cached_property
    def _costs(self) -> AdditiveTable:
        return self.table(layer_costs, columns=4)

    def costs(self, population: Population) -> Costs:
        """Exact MACs, parameters, activation bytes and weight bytes of a population. int64 [n] each."""
        macs, params, activation, weight = np.rint(self._costs(population)).astype(np.int64).T
        return Costs(macs, params, activation, weight)

    def restrict(self, keep: Mapping[str, Sequence[Option] | int]) -> SearchSpace:
        """The part of this space in which the choices that match a pattern keep only some options.

        `space.restrict({"*.depth": (4,)})`; its archs are archs of this space. A number n stands for the n
        largest options of each choice, all of them where it has fewer: `{"*": 1, "*.depth": 2}` leaves the
        two largest depths open. Where several patterns match a choice, the last one decides.

        Raises:
            SpaceError: options for a pattern that matches no choice (a number may match none, so that it
                serves any space), or a choice left without options.
        """
        choices = list(self.choices)
        decided: dict[int, Sequence[Option] | int] = {}
        for pattern, allowed in keep.items():
            matched = [j for j, c in enumerate(choices) if fnmatchcase(c.name, pattern)]
            if not matched and not isinstance(allowed, int):
                raise SpaceError(
                    f"no choice of {self.name!r} matches {pattern!r}{did_you_mean(pattern, self._column)}"
                )
            decided |= dict.fromkeys(matched, allowed)
        for j, allowed in decided.items():
            name, options = choices[j].name, choices[j].options
            if isinstance(allowed, int):
                kept, said = options[-allowed:] if allowed > 0 else (), f"the {allowed} largest"
            else:
                kept, said = tuple(o for o in options if o in allowed), str(tuple(allowed))
            if not kept:
                raise SpaceError(f"{name} would keep no option: {said} of {options}")
            choices[j] = Choice(name, kept, choices[j].when)
        return SearchSpace(
            self.name,
            choices,
            self.build,
            input_shape=self._input_shape,
            input_dtype=self.input_dtype,
            rules=self.rules,
            channel_groups=self.channel_groups,
            settings=self.settings,
        )

    # -- conditions ----------------------------------------------------------------------------------------

    def _group_by_condition(self) -> list[tuple[list[tuple[int, NDArray[np.bool_]]], list[int]]]:
        """Choices that share a condition, with the condition as look-up tables over the parents' indices."""
        groups: dict[Any, tuple[list[tuple[int, NDArray[np.bool_]]], list[int]]] = {}
        for j, choice in enumerate(self.choices):
            tests = []
            for parent, allowed in choice.when.items():
                at = self._column.get(parent, j)
                if at >= j:
                    raise SpaceError(
                        f"{choice.name!r} depends on {parent!r}, which is not a choice before it"
                    )
                table = np.zeros(len(self.choices[at].options) + 1, dtype=bool)  # the last entry answers -1
                table[:-1] = [option in allowed for option in self.choices[at].options]
                tests.append((at, table))
            depth = max((at for at, _ in tests), default=-1)
            groups.setdefault((depth, tuple(choice.when.items())), (tests, []))[1].append(j)
        return [groups[key] for key in sorted(groups, key=lambda key: key[0])]

    def _drop_inactive(self, population: Population) -> Population:
        """Sets what is not in force to -1, in place; parents are settled before their children."""
        for tests, columns in self._groups:
            if tests:
                off = ~np.logical_and.reduce([table[population[:, at]] for at, table in tests])
                rows = np.flatnonzero(off)
                if len(rows):
                    population[rows[:, None], columns] = -1
        return population

    def _components(self) -> list[list[int]]:
        """Choices that conditions connect, each list in order."""
        home = list(range(len(self.choices)))

        def root(j: int) -> int:
            while home[j] != j:
                j = home[j]
            return j

        for j, choice in enumerate(self.choices):
            for parent in choice.when:
                home[root(j)] = root(self._column[parent])
        members: dict[int, list[int]] = {}
        for j in range(len(self.choices)):
            members.setdefault(root(j), []).append(j)
        return list(members.values())

    def _count(self, component: Sequence[int]) -> int:
        """Canonical assignments of the choices of one component."""
        members = [self.choices[j] for j in component]
        parents = {name for choice in members for name in choice.when}

        def count(position: int, kept: dict[str, Option]) -> int:
            ways = 1
            for at in range(position, len(members)):
                choice = members[at]
                if not all(p in kept and kept[p] in allowed for p, allowed in choice.when.items()):
                    continue
                if choice.name in parents:
                    return ways * sum(count(at + 1, {**kept, choice.name: o}) for o in choice.options)
                ways *= len(choice.options)
            return ways

        return count(0, {})
