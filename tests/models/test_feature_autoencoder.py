"""The feature-enhanced autoencoder: its parameters counted by hand, and what depends on what (Figure 1(B))."""

from __future__ import annotations

import pytest
import torch

from fedbrats.models.feature_autoencoder import FeatureAutoencoder


@pytest.mark.parametrize(
    ("modalities", "expected"),
    # Encoder of a pair 2*10+10 + 10+1 = 41, its decoder 10+10 + 20+2 = 42; three linear layers between W and M.
    [(3, 3 * 41 + 3 * 42 + 12 + 12 + 12), (4, 6 * 41 + 6 * 42 + 28 + 30 + 28)],
)
def test_parameters(modalities: int, expected: int) -> None:
    assert sum(p.numel() for p in FeatureAutoencoder(modalities).parameters()) == expected


def test_a_pair_says_only_what_it_sees_and_both_decoders_teach_the_encoders() -> None:
    torch.manual_seed(0)
    network, values = FeatureAutoencoder(), torch.rand(8, 4) * 2 - 1
    assert network.pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    moved = values.clone()
    moved[:, 3] = 0
    chosen = torch.tensor(network.pairs)
    before, after = (network.encoders(x[:, chosen].transpose(0, 1)) for x in (values, moved))
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [3 in pair for pair in network.pairs]
    pairs, whole = network(values)
    assert pairs.shape == (8, 6, 2)
    assert whole.shape == network.encode(values).shape == (8, 4)
    for number, silent in (
        (0, network.whole),
        (1, network.decoders),
    ):  # which the error of the other does not reach
        network.zero_grad(set_to_none=True)
        network.errors(values)[number].backward()
        assert all(p.grad is None for p in silent.parameters())
        assert all(p.grad is not None and p.grad.any() for p in network.narrow.parameters())


def test_the_errors_are_those_of_the_right_modalities() -> None:
    network, values = FeatureAutoencoder(2), torch.tensor([[0.5, -0.5]])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.whole[0].bias[:] = torch.atanh(torch.tensor([0.5, 0.0]))
        network.decoders[2].bias[:] = torch.atanh(torch.tensor([0.0, -0.5]))
    pairs, whole = (error.detach() for error in network.errors(values))
    assert float(whole) == pytest.approx(0.125)  # the second is missed by 0.5
    assert float(pairs) == pytest.approx(0.125)  # the first is


def test_one_modality_has_no_pair() -> None:
    with pytest.raises(ValueError, match="two modalities"):
        FeatureAutoencoder(1)
