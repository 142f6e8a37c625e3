"""BatchNorm at an institution that never trained: mean of the sites, recalibrated, or by instance."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fedbrats.config.targets import ConfigError
from fedbrats.personalization.unseen import average, check_fits, instance_statistics, recalibrate
from tests.personalization.toy_work import conv_network


def test_average_by_hand() -> None:
    a = {"m": torch.tensor([1.0, 2.0]), "v": torch.tensor([4.0])}
    b = {"m": torch.tensor([3.0, 8.0]), "v": torch.tensor([1.0])}
    c = {"m": torch.tensor([2.0, 2.0]), "v": torch.tensor([1.0])}
    found = average([a, b, c])
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"m": [2.0, 4.0], "v": [2.0]}
    assert found["m"].dtype == torch.float32
    assert average([a])["m"] is not a["m"]


def test_the_mean_variance_leaves_out_that_the_sites_differ() -> None:
    """As the docstring says: features 0 +- 1 and 10 +- 1 have variance 26 together, the mean variance is 1."""
    sites = [torch.tensor([-1.0, 1.0]), torch.tensor([9.0, 11.0])]
    found = average([{"var": site.var(correction=0)} for site in sites])
    assert float(found["var"]) == 1.0
    assert float(torch.cat(sites).var(correction=0)) == 26.0


def test_average_of_nothing_or_of_different_things_is_refused() -> None:
    one = {"m": torch.zeros(2)}
    for sites in (
        [],
        [one, {"n": torch.zeros(2)}],
        [one, {"m": torch.zeros(1)}],
        [one, {**one, "n": torch.zeros(1)}],
    ):
        with pytest.raises(ValueError, match="local"):
            average(sites)


def scans(count: int, size: int = 3) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(size, 4, 5, 5, 5, generator=rng) * (i + 1) + i for i in range(count)]


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance per channel."""
    flat = values.transpose(0, 1).flatten(1).double()
    return flat.mean(1).float(), flat.var(1, correction=1).float()


def spoilt(network: nn.Sequential) -> nn.Sequential:
    """With statistics that must leave no trace."""
    network[1].running_mean.fill_(50.0)
    network[1].running_var.fill_(70.0)
    network[1].num_batches_tracked.fill_(1000)
    return network


def test_recalibrated_statistics_by_hand() -> None:
    network, batches = spoilt(conv_network()), scans(3)
    with torch.no_grad():
        seen = [moments(network[0](batch)) for batch in batches]
    recalibrate(network, iter(batches))
    torch.testing.assert_close(network[1].running_mean, torch.stack([m for m, _ in seen]).mean(0))
    torch.testing.assert_close(network[1].running_var, torch.stack([v for _, v in seen]).mean(0))


def test_the_second_layer_sees_what_the_first_makes_of_the_batch() -> None:
    network = nn.Sequential(
        nn.Dropout(0.9), nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1), nn.BatchNorm3d(2, affine=False)
    )
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    (batch,) = scans(1)
    flat = batch.transpose(0, 1).flatten(1)
    mean, deviation = flat.mean(1), (flat.var(1, correction=0) + 1e-5).sqrt()
    first = (batch - mean.view(4, 1, 1, 1)) / deviation.view(4, 1, 1, 1) * network[1].weight.view(4, 1, 1, 1)
    recalibrate(network, [batch])
    expected = moments(network[2](first).detach())
    torch.testing.assert_close(network[3].running_mean, expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network[3].running_var, expected[1], atol=1e-5, rtol=1e-5)


def test_nothing_but_the_statistics_changes() -> None:
    network = spoilt(conv_network()).train()
    network[3].eval()
    network[1].momentum = 0.37
    modes = [module.training for module in network.modules()]
    before, graphs = copy.deepcopy(network.state_dict()), []
    network[1].register_forward_hook(lambda module, inputs, output: graphs.append(output.requires_grad))
    recalibrate(network, scans(2))
    after = network.state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {
        *("1.running_mean", "1.running_var", "1.num_batches_tracked")
    }
    assert [module.training for module in network.modules()] == modes
    assert (network[1].momentum, graphs) == (0.37, [False, False])


def test_failures_leave_the_network_as_it_was() -> None:
    network = spoilt(conv_network()).train()
    with pytest.raises(ValueError, match="no scans"):
        recalibrate(network, [])
    assert float(network[1].running_mean[0]) == 50.0
    with pytest.raises(RuntimeError):
        recalibrate(network, [torch.zeros(2, 3, 4, 4, 4)])
    assert (network[1].momentum, network.training, network[3].training) == (0.1, True, True)
    for nothing in (nn.GroupNorm(1, 4), nn.BatchNorm3d(4, track_running_stats=False)):
        with pytest.raises(ValueError, match="no BatchNorm statistics"):
            recalibrate(nn.Sequential(nothing), scans(1))


def pair() -> tuple[nn.Sequential, nn.Sequential]:
    """A network with BatchNorm, and the same with InstanceNorm in its place."""
    torch.manual_seed(3)
    batch = nn.Sequential(
        *(nn.Conv3d(4, 6, 1), nn.BatchNorm3d(6, eps=0.3), nn.Conv3d(6, 3, 1), nn.BatchNorm3d(3, affine=False))
    )
    with torch.no_grad():
        batch[1].weight.uniform_(0.5, 2)
        batch[1].bias.normal_()
        batch[1].running_mean.fill_(4.0)
    instance = copy.deepcopy(batch)
    instance[1] = nn.InstanceNorm3d(6, eps=0.3, affine=True)
    instance[1].load_state_dict({key: batch[1].state_dict()[key] for key in ("weight", "bias")})
    instance[3] = nn.InstanceNorm3d(3)
    return batch, instance


@pytest.mark.parametrize("train", [True, False])
def test_instance_statistics_are_instance_norm(train: bool) -> None:
    batch, instance = pair()
    batch.train(train)
    images = torch.cat(scans(2, size=2))
    before, outside = copy.deepcopy(batch.state_dict()), batch.eval()(images)
    batch.train(train)
    with torch.no_grad(), instance_statistics(batch):
        inside = batch(images)
        alone = torch.cat([batch(image[None]) for image in images])
    torch.testing.assert_close(inside, instance(images).detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(inside, alone, atol=1e-6, rtol=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in batch.state_dict().items())
    assert not torch.allclose(inside, outside, atol=0.1)
    assert torch.equal(batch.eval()(images), outside)  # restored


def test_instance_statistics_end_with_their_context() -> None:
    batch, _ = pair()
    images = scans(1)[0]
    expected = batch.eval()(images)
    with pytest.raises(KeyError), instance_statistics(batch), instance_statistics(batch):
        raise KeyError
    assert torch.equal(batch(images), expected)
    assert not any("forward" in vars(module) for module in batch.modules())
    with instance_statistics(batch):
        with instance_statistics(batch):
            pass
        inside = batch(images)
    assert not torch.allclose(inside, expected, atol=0.1)
    with pytest.raises(ValueError, match="no BatchNorm"), instance_statistics(nn.GroupNorm(1, 4)):
        pass


def test_two_dimensions_and_a_subclass() -> None:
    class Mine(nn.BatchNorm2d):
        """A subclass."""

    layer, images = Mine(4).eval(), scans(1)[0][..., 0]
    with instance_statistics(layer):
        torch.testing.assert_close(layer(images), nn.InstanceNorm2d(4)(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("layer", "fitting"),
    [
        (nn.BatchNorm3d(2), {"average", "recalibrate", "instance"}),
        (nn.BatchNorm3d(2, track_running_stats=False), {"initial", "average", "instance"}),
        (nn.GroupNorm(1, 2), {"initial", "average"}),
        (nn.InstanceNorm3d(2, track_running_stats=True), {"average"}),
    ],
)
def test_what_fits_which_norm(layer: nn.Module, fitting: set[str]) -> None:
    network = nn.Sequential(layer)
    for unseen in ("initial", "average", "recalibrate", "instance"):
        if unseen in fitting:
            check_fits(unseen, network)
        else:
            with pytest.raises(ConfigError, match=rf"personalization\.unseen={unseen}: Sequential") as error:
                check_fits(unseen, network)
            choices = str(error.value).partition("choose ")[2].rstrip(".").split(" or ")
            assert set(choices) == fitting
