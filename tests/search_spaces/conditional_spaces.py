"""Random small spaces with conditions, and networks whose layers say which arch they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces import Arch, Choice, Layer, Option, SearchSpace


class Chain(nn.Module):
    """One linear layer per choice in force, as wide as the position of its option plus one."""

    def __init__(self, widths: dict[str, int]) -> None:
        super().__init__()
        for name, width in widths.items():
            self.add_module(name, nn.Linear(1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :1]
        for layer in self.children():
            layer(x)
        return x


def chain_space(choices: Sequence[Choice]) -> SearchSpace:
    positions = {c.name: {option: i for i, option in enumerate(c.options)} for c in choices}
    return SearchSpace(
        "chain",
        choices,
        lambda arch: Chain({name: positions[name][option] + 1 for name, option in arch.items()}),
        input_shape=(1, 1, 1),
    )


def positions(layers: Sequence[Layer]) -> dict[str, int]:
    """The position of each choice in force, read off the layers of a `Chain`."""
    return {layer.name: layer.output[-1] - 1 for layer in layers if layer.kind == "linear"}


@st.composite
def conditional_choices(draw: st.DrawFn, most: int = 6) -> list[Choice]:
    choices: list[Choice] = []
    for j in range(draw(st.integers(1, most))):
        count = draw(st.integers(1, 4))
        options: list[Option] = draw(
            st.sampled_from(
                [list(range(count)), [f"o{i}" for i in range(count)], [i / 2 for i in range(count)]]
            )
        )
        when = {}
        if choices:
            for parent in draw(st.lists(st.sampled_from(choices), max_size=2, unique_by=lambda c: c.name)):
                when[parent.name] = draw(
                    st.lists(st.sampled_from(parent.options), min_size=1, max_size=3, unique=True)
                )
        choices.append(Choice(f"c{j}", options, when))
    return choices


conditional_spaces = conditional_choices().map(chain_space)


def every_arch(space: SearchSpace) -> Iterator[Arch]:
    """Brute force over all assignments, straight from the definition of a condition."""
    seen = set()
    for options in product(*(c.options for c in space.choices)):
        kept: dict[str, Option] = {}
        for choice, option in zip(space.choices, options, strict=True):
            if all(p in kept and kept[p] in allowed for p, allowed in choice.when.items()):
                kept[choice.name] = option
        arch = Arch(kept)
        if arch not in seen:
            seen.add(arch)
            yield arch
