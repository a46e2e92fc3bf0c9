"""Once-for-All's kernels: centre crops, then learned matrices, in a chain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from search_spaces import Arch, Choice, SearchSpace, mobilenet_v3
from supernets import KernelTransform, Slice, Supernet

NAME = "blocks.1.0.conv_dw.weight"
KERNEL = "stage1.block1.kernel"


def small_space(**keywords: object) -> SearchSpace:
    return mobilenet_v3.space(image_size=16, channels=1, classes=10, **keywords)


def with_kernel(space: SearchSpace, kernel: int) -> Arch:
    return space.arch({c.name: c.options[-1] for c in space.choices} | {KERNEL: kernel})


def weight(supernet: Supernet, kernel: int, name: str = NAME) -> Tensor:
    return supernet.subnet(with_kernel(supernet.space, kernel)).state_dict(keep_vars=True)[name]


def middle(kernel: Tensor, size: int) -> Tensor:
    edge = (kernel.shape[-1] - size) // 2
    return kernel[..., edge : edge + size, edge : edge + size]


@pytest.fixture
def transform() -> Supernet:
    return Supernet(small_space(), KernelTransform()).eval()


def test_identity_matrices_are_centre_crops_bit_for_bit(transform):
    seven = transform.shared[NAME]
    assert seven.shape[-1] == 7
    assert weight(transform, 7) is seven
    assert torch.equal(weight(transform, 5), middle(seven, 5))
    assert torch.equal(weight(transform, 3), middle(seven, 3))


def test_at_the_start_it_computes_what_slices_compute(transform, rng):
    space = transform.space
    slices = Supernet(space, Slice()).eval()
    slices.load_shared_state({n: t for n, t in transform.shared_state().items() if "scheme." not in n})
    for arch in space.archs(space.sample(4, rng)):
        x = torch.randn(2, *space.input_shape(arch))
        assert torch.equal(transform(x, arch), slices(x, arch))


@pytest.mark.parametrize(("matrix", "changed"), [("7to5", {5, 3}), ("5to3", {3})])
def test_a_matrix_changes_the_kernels_below_it_only(transform, matrix, changed):
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        for p in transform.shared.parameters():  # so that no branch is multiplied by a zero
            p.add_(0.1 * torch.rand_like(p))
        before = {
            k: (weight(transform, k).clone(), transform(x, with_kernel(transform.space, k)))
            for k in (3, 5, 7)
        }
        transform.scheme.matrices[f"{NAME}.{matrix}"].add_(0.5)
        for kernel in (3, 5, 7):
            same = kernel not in changed
            assert torch.equal(weight(transform, kernel), before[kernel][0]) == same
            assert torch.equal(transform(x, with_kernel(transform.space, kernel)), before[kernel][1]) == same


def test_the_chain_is_the_product_of_the_paper(transform):
    """W5 = M75 centre(W7), W3 = M53 centre(W5), each channel alike, by explicit loops."""
    with torch.no_grad():
        for p in transform.scheme.parameters():
            p.add_(torch.randn_like(p))
        m75, m53 = (transform.scheme.matrices[f"{NAME}.{step}"] for step in ("7to5", "5to3"))
        seven = transform.shared[NAME]
        five, three = weight(transform, 5), weight(transform, 3)
        for c in range(seven.shape[0]):
            expected = (m75 @ middle(seven[c, 0], 5).flatten()).view(5, 5)
            assert torch.allclose(five[c, 0], expected, atol=1e-5)
            expected = (m53 @ middle(expected, 3).flatten()).view(3, 3)
            assert torch.allclose(three[c, 0], expected, atol=1e-4)


def test_parameters_per_layer():
    space = small_space()
    layers = sum(max(c.options) for c in space.choices if c.name.endswith(".depth"))
    matrices = dict(KernelTransform().named_parameters())
    assert not matrices
    scheme = Supernet(space, KernelTransform()).scheme
    assert sum(p.numel() for p in scheme.parameters()) == layers * (25**2 + 9**2)
    assert len(list(scheme.parameters())) == 2 * layers
    assert all(p.requires_grad for p in scheme.parameters())


def test_gradients_reach_the_matrices_of_the_kernels_drawn(transform):
    matrices = transform.scheme.matrices
    for kernel, reached in ((7, set()), (5, {"7to5"}), (3, {"7to5", "5to3"})):
        transform.zero_grad(set_to_none=True)
        arch = with_kernel(transform.space, kernel)
        with torch.no_grad():
            for p in transform.shared.parameters():
                p.add_(0.05)
        transform(torch.randn(2, 1, 16, 16), arch).square().sum().backward()
        for step in ("7to5", "5to3"):
            grad = matrices[f"{NAME}.{step}"].grad
            assert (grad is not None and bool(grad.any())) == (step in reached)
        grad = transform.shared[NAME].grad
        rim = grad.clone()
        middle(rim, 5).zero_()
        assert rim.any() == (kernel == 7)


def test_rows_of_a_matrix_that_the_next_crop_drops_are_not_touched(transform):
    space = transform.space
    name = f"scheme.matrices.{NAME}"
    assert f"{name}.7to5" not in transform.touched([with_kernel(space, 7)])
    assert transform.touched([with_kernel(space, 5)])[f"{name}.7to5"] is None
    touched = transform.touched([with_kernel(space, 3)])
    rows = torch.zeros(5, 5, dtype=torch.bool)
    rows[1:4, 1:4] = True
    assert torch.equal(touched[f"{name}.7to5"], rows.view(25, 1).expand(25, 25))
    assert touched[f"{name}.5to3"] is None
    for order in ((3, 5), (5, 3)):
        assert transform.touched([with_kernel(space, k) for k in order])[f"{name}.7to5"] is None


@pytest.mark.parametrize(
    ("kernels", "steps"), [((3, 7), ["7to3"]), ((5,), []), ((1, 3, 5, 9), ["3to1", "5to3", "9to5"])]
)
def test_the_chain_runs_over_the_kernels_that_the_space_has(kernels, steps):
    space = small_space(kernels=kernels)
    supernet = Supernet(space, KernelTransform()).eval()
    own = [n.rsplit(".", 1)[1] for n in supernet.scheme.matrices if n.startswith(NAME)]
    assert own == steps
    largest = supernet.shared[NAME]
    for kernel in kernels:
        assert torch.equal(weight(supernet, kernel), middle(largest, kernel))


def test_layers_of_one_kernel_and_other_tensors_are_the_inner_scheme_s():
    class Net(nn.Module):
        def __init__(self, kernel: int, width: int) -> None:
            super().__init__()
            self.fixed = nn.Conv2d(1, width, 3, padding=1)
            self.elastic = nn.Conv2d(width, width, kernel, padding=kernel // 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.elastic(self.fixed(x))

    space = SearchSpace(
        "net",
        [Choice("kernel", (3, 5)), Choice("width", (2, 4))],
        lambda arch: Net(arch["kernel"], arch["width"]),
        input_shape=(1, 8, 8),
    )
    supernet = Supernet(space, KernelTransform())
    assert list(supernet.scheme.matrices) == ["elastic.weight.5to3"]
    subnet = supernet.subnet(space.smallest)
    whole = supernet.shared["elastic.weight"]
    assert torch.equal(subnet.elastic.weight, middle(whole[:2, :2], 3))
    assert torch.equal(subnet.fixed.weight, supernet.shared["fixed.weight"][:2])
    assert (
        subnet.fixed.weight.untyped_storage().data_ptr()
        == supernet.shared["fixed.weight"].untyped_storage().data_ptr()
    )
