"""Sharing by slices: which entries, in words, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces import Choice, SearchSpace, SpaceError, heads, index_set, mobilenet_v3, vit
from supernets import Slice, Supernet
from supernets.tensors import TensorTree


def linear_space(rules: dict | None = None) -> SearchSpace:
    return SearchSpace(
        "linear",
        [Choice("inputs", (2, 4)), Choice("outputs", (3, 6))],
        lambda arch: nn.Sequential(nn.Linear(arch["inputs"], arch["outputs"])),
        input_shape=(4,),
        rules=rules,
    )


def test_leading_entries_without_a_rule():
    supernet = Supernet(linear_space())
    subnet = supernet.subnet(supernet.space.smallest)
    assert torch.equal(subnet[0].weight, supernet.shared["0.weight"][:3, :2])
    assert torch.equal(subnet[0].bias, supernet.shared["0.bias"][:3])


def test_the_largest_holds_the_shared_tensors_themselves():
    supernet = Supernet(linear_space())
    subnet = supernet.subnet(supernet.space.largest)
    assert subnet[0].weight is supernet.shared["0.weight"]


def test_a_rule_decides_where_its_pattern_matches_and_the_first_pattern_wins():
    every_other = index_set(0, lambda size: range(0, 2 * size, 2))
    supernet = Supernet(linear_space({"*.weight": every_other, "0.*": heads(3)}))
    subnet = supernet.subnet(supernet.space.smallest)
    assert torch.equal(subnet[0].weight, supernet.shared["0.weight"][::2, :2])
    assert torch.equal(subnet[0].bias, supernet.shared["0.bias"][::2])
    touched = supernet.touched([supernet.space.smallest])
    assert touched["shared.0.weight"][::2, :2].all()
    assert touched["shared.0.weight"].sum() == 6


def test_kernels_share_their_centre():
    space = mobilenet_v3.space(image_size=16, channels=1, classes=10)
    supernet = Supernet(space)
    name = "blocks.2.0.conv_dw.weight"
    small = supernet.subnet(space.smallest).state_dict(keep_vars=True)[name]
    whole = supernet.shared[name]
    assert torch.equal(small, whole[: small.shape[0], :, 2:5, 2:5])
    assert small.data_ptr() == whole[:, :, 2:, 2:].data_ptr()


def test_head_h_is_the_same_head_at_every_count():
    space = vit.space(image_size=16, channels=1, classes=10, heads=(1, 2, 3, 4))
    supernet = Supernet(space)
    whole = supernet.shared["blocks.0.attn.qkv.weight"].unflatten(0, (3, 4, 32))
    bias = supernet.shared["blocks.0.attn.qkv.bias"].unflatten(0, (3, 4, 32))
    with torch.no_grad():
        bias.add_(torch.randn_like(bias))
    full = {c.name: c.options[-1] for c in space.choices}
    for count in (1, 2, 3, 4):
        for dim in (64, 128):
            attention = (
                supernet.subnet(space.arch({**full, "block1.heads": count, "embed_dim": dim})).blocks[0].attn
            )
            assert attention.num_heads == count
            weight = attention.qkv.weight.unflatten(0, (3, count, 32))
            assert torch.equal(weight, whole[:, :count, :, :dim])
            assert torch.equal(attention.qkv.bias.unflatten(0, (3, count, 32)), bias[:, :count])
            assert torch.equal(
                attention.proj.weight, supernet.shared["blocks.0.attn.proj.weight"][:dim, : 32 * count]
            )


def test_a_head_s_output_does_not_depend_on_the_number_of_heads():
    """The tokens that head 0 makes are the same numbers whether two or four heads run beside it."""
    space = vit.space(image_size=16, channels=1, classes=10, heads=(1, 2, 4))
    supernet = Supernet(space).double().eval()
    full = {c.name: c.options[-1] for c in space.choices}
    x = torch.randn(2, 9, 128, dtype=torch.float64)
    outputs = []
    for count in (1, 2, 4):
        attention = supernet.subnet(space.arch({**full, "block1.heads": count})).blocks[0].attn
        attention.proj = nn.Identity()
        outputs.append(attention(x)[..., :32])
    assert torch.allclose(outputs[0], outputs[1], atol=1e-14)
    assert torch.allclose(outputs[0], outputs[2], atol=1e-14)


def test_a_tensor_that_would_grow_is_refused():
    supernet = Supernet(linear_space())
    scheme, shared, arch = supernet.scheme, supernet.shared, supernet.space.largest
    message = (
        r"^weight '0.weight' is \[6, 4\] shared but \[6, 5\] in the subnet: axis 1 would grow from 4 to 5$"
    )
    with pytest.raises(SpaceError, match=message):
        scheme.take("0.weight", (6, 5), shared, arch)
    with pytest.raises(SpaceError, match=r"a rule in SearchSpace.rules must say how it is shared"):
        scheme.take("0.weight", (6,), shared, arch)


def test_a_space_that_hides_a_size_between_its_ends_is_refused_when_drawn():
    """The covering archs cannot show every size of a space that is not monotone; drawing one says so."""
    sizes = {0: 4, 1: 6, 2: 4}
    space = SearchSpace(
        "hidden",
        [Choice("parent", (0, 1, 2)), Choice("child", (1, 2), when={"parent": (0, 1, 2)})],
        lambda arch: nn.Linear(4, sizes[arch["parent"]]),
        input_shape=(4,),
    )
    supernet = Supernet(space)
    supernet.subnet(space.largest)
    with pytest.raises(SpaceError, match="would grow from 4 to 6"):
        supernet.subnet(space.arch({"parent": 1, "child": 1}))


def test_masks_of_archs_of_different_widths():
    supernet = Supernet(linear_space())
    archs = [
        supernet.space.arch({"inputs": 2, "outputs": 6}),
        supernet.space.arch({"inputs": 4, "outputs": 3}),
    ]
    mask = supernet.touched(archs)["shared.0.weight"]
    expected = torch.zeros(6, 4, dtype=torch.bool)
    expected[:, :2] = expected[:3] = True
    assert torch.equal(mask, expected)
    assert supernet.touched([*archs, supernet.space.largest])["shared.0.weight"] is None


def test_bind_by_hand():
    scheme, shared = Slice(), TensorTree()
    shared.put("w", torch.arange(12.0).view(3, 4))
    scheme.bind(linear_space(), {"w": {(3, 4), (2, 2)}})
    arch = linear_space().largest
    assert scheme.take("w", (2, 2), shared, arch).tolist() == [[0, 1], [4, 5]]
    assert scheme.take("w", (3, 4), shared, arch) is shared["w"]
