"""UNCE: U-Net with context encoding (BrainLes 2021), whose dropout stays on for Monte Carlo passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from fedbrats.models.blocks import check_widths, stage
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def unce(
    in_channels: int = 4,
    out_channels: int = 4,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    convolutions: int = 2,
    codewords: int = 32,
    dropout: float = 0.3,
    semantic: bool = True,
    prior: float | None = 0.1,
) -> UNCE:
    """U-Net whose deepest features are scaled by an encoding of the whole patch, sections 2.2 to 2.5.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 16 by default, and
    returns logits [batch, out_channels, X, Y, Z]; in training a list of these and of what the patch holds anywhere,
    logits [batch, out_channels, 1, 1, 1] with a sigmoid for each channel (`losses.semantic`).

    Printed and chosen:

    - U-Net: its layers are in Figure 2 alone, no count of parameters is printed. Chosen: five levels of two 3x3x3
      convolutions, instance norm and leaky ReLU, 16 channels doubled per level, max pooling, transposed convolutions of
      2. One crop of 192x160x128 (section 2.3) then takes 6.3 GB or more in training. Batch norm would make
      federations and patient-level privacy harder, and the batch is not printed.
    - Context encoding: that of Zhang et al. (CVPR 2018), section 3.1, which the paper cites, on the deepest features.
      32 codewords are theirs. They put BatchNorm and ReLU on what each codeword has gathered; here it is layer norm.
    - Semantic loss: "another fully connected layer with a sigmoid activation function upon the encoding layer" and the
      coefficient 1 (Equation 1) are printed, what it counts is not. Chosen: binary cross-entropy on which classes the
      patch holds, as in Zhang et al. Weights of outputs are scaled to sum 1, so the loss told is half of Equation 1.
    - Dropout: "30% of random weight was dropped" (section 2.4), "in each layer" (section 3). Chosen: single
      activations, after every leaky ReLU.
    - Outputs: "a vector of SoftMax scores for the C classes" (section 2.5), so four exclusive classes.
    - Noise: "uniform white noise with limited amplitude" (section 2.3) has no number (`train.augment=noise`).
    - Inference: N = 100 samples (section 3) are averaged "over all the outputs obtained after applying a combination of
      MCDO and TTA" (Equation 5); which transforms, is not printed. Chosen: 13 passes in each of the 8 mirrorings, 104
      in all (`inference=mc_dropout_flips`).
    - Batch, and where the crop lies, are not printed: 1, anywhere. See "What is not as printed" in models/README.md.

    Contradictions: the abstract speaks of epistemic and aleatoric uncertainty by Monte Carlo dropout and test-time
    augmentation, section 2.5 has the latter capture the epistemic. Dice of ET without dropout is 0.7696 in Table 1 and
    0.7698 in the text, with both 0.7786 there and 0.7787 in the abstract.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        convolutions: per level of encoder and decoder.
        codewords: of the context encoding.
        dropout: probability that an activation is dropped.
        semantic: whether training also tells which channels are present; false for losses that do not read it.
        prior: probability of tumour that the output starts with.

    Raises:
        ValueError: fewer than two levels, no convolution, no codeword, a dropout outside [0, 1) or a bad `prior`.
    """
    check_widths(channels, convolutions)
    if codewords < 1:
        raise ValueError(f"model.codewords={codewords}: must be 1 or more.")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must lie in [0, 1), a probability.")
    network = UNCE(in_channels, out_channels, tuple(channels), convolutions, codewords, dropout, semantic)
    set_output_prior(network, out_channels, prior)
    return network


class ContextEncoding(nn.Module):
    """Encoding layer of Zhang et al.: what is left of the features around learnt codewords, summed over the patch."""

    def __init__(self, width: int, codewords: int) -> None:
        """`width` channels."""
        super().__init__()
        reach = (width * codewords) ** -0.5
        self.codebook = nn.Parameter(torch.empty(codewords, width).uniform_(-reach, reach))
        self.smoothing = nn.Parameter(torch.rand(codewords))
        self.norm = nn.LayerNorm(width)

    def gathered(self, features: Tensor) -> Tensor:
        """Residuals to every codeword, weighted and summed over the voxels: [batch, width, ...] to [batch, K, width].

        r_ik = x_i - d_k, weighted with the softmax over k of -s_k |r_ik|^2; no [voxels, K, width] is ever held.
        """
        x = features.flatten(2).transpose(1, 2)  # [batch, voxels, width]
        squares = x.square().sum(2, keepdim=True) + self.codebook.square().sum(1)
        weights = (-self.smoothing * (squares - 2 * x @ self.codebook.T)).softmax(2)
        return weights.transpose(1, 2) @ x - weights.sum(1).unsqueeze(2) * self.codebook

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, ...] to one vector [batch, width]."""
        return relu(self.norm(self.gathered(features))).sum(1)


class UNCE(nn.Module):
    """The network behind `unce`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...],
        convolutions: int,
        codewords: int,
        dropout: float,
        semantic: bool,
    ) -> None:
        """Arguments as in `unce`."""
        super().__init__()
        skips, deepest = channels[:-1], channels[-1]
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(
            stage(before, [width] * convolutions, dropout=dropout)
            for before, width in zip([in_channels, *skips], channels)
        )
        self.pool = nn.MaxPool3d(2)
        self.context = ContextEncoding(deepest, codewords)
        self.factors = nn.Linear(deepest, deepest)
        self.presence = nn.Linear(deepest, out_channels) if semantic else None
        # Decoder levels from the deepest to the shallowest.
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deeper, width, 2, stride=2)
            for deeper, width in zip(channels[:0:-1], skips[::-1])
        )
        self.decoder = nn.ModuleList(
            stage(2 * width, [width] * convolutions, dropout=dropout) for width in skips[::-1]
        )
        self.head = nn.Conv3d(skips[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; in training a list of them and of the presence of each channel.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else self.pool(features))
            skips.append(features)
        context = self.context(features)
        ones = (1,) * (images.ndim - 2)
        features = features * self.factors(context).sigmoid().unflatten(1, (-1, *ones))
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1]):
            features = block(torch.cat([up(features), skip], dim=1))
        logits = self.head(features)
        if self.training and self.presence is not None:
            return [logits, self.presence(context).unflatten(1, (-1, *ones))]
        return logits
