"""Export a trained model, with the proof that it is the same model, and its model card.

    fedbrats export RUN[@ARM[@WHICH]] data=<folder of cases> [format=bundle|onnx|int8] [output=export]

RUN is a run folder, ARM and WHICH as for `fedbrats predict`. format=bundle: a MONAI bundle that runs with MONAI alone.
format=onnx: one file for onnxruntime (pip install 'fedbrats[export]'). format=int8: the same with weights and
activations in 8 bits, whose ranges come from `calibration` (4) cases of data, those after the cases of the proof.

data: cases of any layout that a run reads; the first `cases` (2) of them are predicted by the original and by what was
exported. Over max_difference=0.001 of a probability or max_score_lost=0.001 in a case nothing is exported; for
format=int8 the usual limits are none of a probability and max_score_lost=0.01.

inference.flips=false inference.overlap=0.5 postprocess=<file of conf/postprocess> ...: the default is what the run was
configured with; what a bundle cannot say is refused by name.

Further: cache=<folder> labels=gli2023 histogram=<reference.json> links=inside|follow max_voxels=134217728
trust=<package>: as for `fedbrats predict`.

In the output folder: the model, the proof (proof.json) and the model card (README.md), in a bundle both below docs/.
`fedbrats predict checkpoint=<output folder>` works on each. The exit status is 0, or 2 if nothing was exported.
"""

from __future__ import annotations

import logging
import sys


def main(arguments: list[str]) -> int:
    """Export one model and return the exit status."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(__doc__, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    from fedbrats.commands.compose import own_folder
    from fedbrats.commands.errors import EXPECTED
    from fedbrats.commands.export.arguments import read_arguments
    from fedbrats.commands.export.export_model import export_model
    from fedbrats.config.names import shown
    from fedbrats.tasks.segmentation import MAIN_TITLE

    try:
        own, words = own_folder(arguments)
        config = read_arguments(words)
        proof = export_model(config, lambda text: print(shown(text), flush=True), own)
    except EXPECTED as error:
        logging.getLogger(__name__).debug("failed", exc_info=True)
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    lost = ", ".join(f"{region} {value:.2g}" for region, value in proof.score_lost.items())
    print(
        f"{proof.cases} cases, {proof.labelled} with labels: probabilities differ by {proof.largest_difference:.2g} at "
        f"most, {MAIN_TITLE} lost at most: {lost}"
    )
    print(config.output)
    return 0
