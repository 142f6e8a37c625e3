"""Training losses: `loss(logits, target)`, one concept per file, chosen by `conf/loss`.

Both arguments are [B, C, ...] in two or three dimensions; the target (bool or float) is that of
`tasks.segmentation.targets`. Sigmoid regions or softmax classes follows from C (`is_softmax` there), so one file of
conf/loss serves any network.
The result is float32 [B]: one value per sample that depends on that sample alone, as patient-level privacy needs it.
A loss that changes over the global rounds is told with every call where they are (`in_round`).

Losses of MONAI can be named directly, with `sigmoid: true` for regions: WT, TC and ET overlap, so a softmax over them
is wrong (its `DiceCELoss` takes one all the same). Such a loss must return [B] or a scalar, which MONAI's default
reduction "mean" does; a scalar belongs to the batch as a whole and does not serve patient-level privacy.
"""
