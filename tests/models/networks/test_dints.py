"""DiNTS: the printed search space, a topology that stands in for the searched ones, and one of your own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from fedbrats.models.networks.dints import checked_code, dints, nodes_of, stand_in
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, losses_of_steps, node, parameters_with_two_names

# Of the ten edges of a layer: the scales that they join (Figure 2), in MONAI's order.
FROM, TO = [0, 1, 0, 1, 2, 1, 2, 3, 2, 3], [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return dints(channel_mul=0.25, layers=2, **settings)


def test_the_topology_has_what_is_printed_of_the_searched_ones() -> None:
    active, operations = stand_in(12)
    assert active.size == 120  # section 2.3
    assert active.sum() == 90  # "around 25% of the cells were pruned"
    assert active[:, 0].all()  # "two horizontal pathways through the maximum feature scale
    assert active[:, 9].all()  # and the minimum scale"
    kept = np.bincount(operations[active == 1], minlength=5)
    assert kept.min() > 15  # "a mixture of all five proposed cell operations"
    assert (nodes_of(active) == 1).all()  # no scale is cut off
    assert len({tuple(row) for row in active}) > 1
    checked_code([active.tolist(), operations.tolist()], 12)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    filters = [32, 64, 128, 256, 512]
    active, operations = stand_in(12)
    total = 0
    for layer, edge in np.argwhere(active):
        before, after = filters[FROM[edge] + 1], filters[TO[edge] + 1]
        if before != after:  # up or down: 1x1x1 and a norm
            total += before * after + 2 * after
        kernel = {0: 0, 1: 27}.get(int(operations[layer, edge]), 9 + 3)  # pseudo-3D: 3x3 and 3
        total += kernel * after * after + (2 * after if kernel else 0)
    for here, half in pairwise(filters):
        total += (
            27 * (4 + 1) * here + 2 * here + 27 * here * half + 2 * half
        )  # down, of four modalities and the mask
        total += 27 * half * here + 2 * here  # up
    total += 27 * 32 * 32 + 2 * 32 + 3 * 32 + 3
    with torch.device("meta"):
        assert count(dints()) == total == 113_413_059


def test_a_topology_of_your_own_is_taken_as_it_is() -> None:
    """As `TopologySearch.decode` gives it: only what a scale is reached by or left for is there."""
    active, operations = np.zeros((2, 10), int), np.full((2, 10), 4)
    active[0, [0, 2]] = 1  # from 1/2 to 1/2 and to 1/4
    active[1, [1, 3, 5]] = 1  # from 1/4 to 1/2, 1/4 and 1/8
    active[1, 0] = 1  # from 1/2 to 1/2
    operations[0, 2] = 1
    network = small(arch_code=[active.tolist(), operations.astype(float).tolist()])
    cells = network.dints.dints_space.cell_tree
    assert set(cells) == {"(0, 0)", "(0, 2)", "(1, 0)", "(1, 1)", "(1, 3)", "(1, 5)"}
    assert network.dints.node_a.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert next(m for m in cells["(0, 2)"].op.modules() if isinstance(m, nn.Conv3d)).kernel_size == (3, 3, 3)
    assert network(torch.randn(1, 4, 32, 32, 32)).shape == (1, 3, 32, 32, 32)


def test_edges_are_in_monais_order() -> None:
    space = small().dints.dints_space
    assert (space.arch_code2in, space.arch_code2out) == (FROM, TO)
    for edge in range(10):
        active = np.zeros((1, 10), int)
        active[0, edge] = 1
        before, after = nodes_of(active)
        assert (np.flatnonzero(before), np.flatnonzero(after)) == ([FROM[edge]], [TO[edge]])


def test_every_edge_has_the_operation_that_its_number_names() -> None:
    """Figure 3: 0 skip, 1 3x3x3, 2 3x3x1 P3D, 3 3x1x3 P3D, 4 1x3x3 P3D."""
    kernels = {0: [], 1: [(3, 3, 3)], 2: [(3, 3, 1)], 3: [(3, 1, 3)], 4: [(1, 3, 3)]}
    active, operations = stand_in(2)
    cells = small().dints.dints_space.cell_tree
    for layer, edge in np.argwhere(active).tolist():
        found = [m.kernel_size for m in cells[str((layer, edge))].op.modules() if isinstance(m, nn.Conv3d)]
        assert found[:1] == kernels[int(operations[layer, edge])]


def test_the_fifth_channel_is_the_brain() -> None:
    network, seen = small(), []
    network.dints.stem_down["0"].mod[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.zeros(1, 4, 32, 32, 32)
    images[0, 2, 3, 4, 5], images[0, 0, 6, 7, 8] = -1.5, 2.0
    network(images)
    assert torch.equal(seen[0][:, :4], images)
    expected = torch.zeros(32, 32, 32)
    expected[3, 4, 5] = expected[6, 7, 8] = 1
    assert torch.equal(seen[0][0, 4], expected)


def test_gradients_reach_everything_and_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (32, 32, 32), steps=4)
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[40, 32, 32\]: sides must be multiples of 16"):
        small()(torch.zeros(1, 4, 40, 32, 32))
    active, operations = (matrix.tolist() for matrix in stand_in(2))
    loose = [list(row) for row in active]
    loose[1] = [1, *[0] * 9]  # the scales 1/4 to 1/16 are reached by layer 1 and left by nothing
    for settings, said in (
        ({"channel_mul": 0.2}, r"model\.channel_mul=0\.2: must be a multiple of 0\.25"),
        ({"layers": 0}, r"model\.layers=0"),
        (
            {"layers": 2, "arch_code": [active]},
            r"model\.arch_code: two matrices of 2 rows \(model\.layers\) and 10",
        ),
        ({"arch_code": [active, operations]}, r"of 12 rows .*, not \[\[2, 10\], \[2, 10\]\]"),
        ({"layers": 2, "arch_code": [operations, operations]}, r"the first of 0 and 1"),
        ({"layers": 2, "arch_code": [active, [[5] * 10] * 2]}, r"the second of 0 to 4"),
        ({"layers": 2, "arch_code": [["ten", "ten"], operations]}, r"of numbers"),
        (
            {"layers": 2, "arch_code": [loose, operations]},
            r"after layer 1 a scale is reached that no edge leaves",
        ),
        ({"layers": 1, "arch_code": [[[0] * 10], [[0] * 10]]}, r"a layer without an edge"),
    ):
        with pytest.raises(ValueError, match=said):
            dints(**settings)


def test_configurations_build(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        network, rules = configured("dints")
    assert capsys.readouterr().out == ""  # what MONAI prints
    assert count(network) == 113_413_059
    assert (rules["patch"], rules["multiple"]) == ([128, 128, 128], 16)
    assert node("dints", "full")["arch_code"] is None
    network, rules = configured("dints", "small")
    assert head_modules(network, rules["patch"]) == ("dints.stem_finals.1",)
    assert 500_000 < count(network) < 3_000_000
    torch.testing.assert_close(network.dints.stem_finals[-1].bias.detach(), torch.full((3,), -2.1972246))
