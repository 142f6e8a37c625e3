"""Segment cases with trained models.

    fedbrats predict checkpoint=RUN[@ARM[@WHICH]] data=<folder of cases> [output=predictions] [maps=true]

checkpoint: RUN is a run folder; ARM is federated (default), pooled, local:<site>, or local for the models of all
sites; WHICH is best, last or the number of a round (default: what the run itself tested). Several models are an
ensemble: checkpoint=[A,B,...], put together by inference.combine=average, vote or staple. A list in the list is one
voice, the average of its models, such as the folds of a cross-validation: checkpoint=[[A0,A1],[B0,B1],C]. A folder of
runs (of a sweep) stands for the list of what is in it. What `fedbrats export` made is a model too: checkpoint=<bundle>
or <folder of model.onnx>.

data: any layout that a run reads; labels are optional, and cases that have them are scored.

inference.flips=true inference.mc_passes=10 inference.locate=RUN[@ARM[@WHICH]] inference.overlap=0.7 ...: the default
is what the first model's run was configured with; input rules, window and normalisation are each model's own.
postprocess=<file of conf/postprocess, or of that group in --config-dir <folder>> or none: the default is the first
model's, with the values its run fitted.

Further: cache=<folder> device=auto|cpu|cuda metrics.convention=brats2023 labels=gli2023 histogram=<reference.json>
max_voxels=134217728 (of one file) links=inside|follow (links that leave the folder)
trust=<package>: of a run folder, which may come from anybody, a package of your own is built only if you name it here.

The output folder gets <case>.nii.gz in the space and with the label numbers of the data, with maps=true also
probabilities and uncertainties, cases.csv (status, volumes, uncertainty, order of review) and summary.json; labelled
cases add scores.csv, reliability and retained-cases figures and report.html. The exit status is 0, 1 if a case failed,
2 if the command cannot be used.
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console


def main(arguments: list[str]) -> int:
    """Predict one folder and return the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    if not arguments or set(arguments) & {"-h", "--help"}:
        console.print(__doc__, markup=False)
        return 0 if arguments else 2
    from fedbrats.commands.compose import own_folder
    from fedbrats.commands.errors import EXPECTED
    from fedbrats.commands.predict.arguments import read_arguments
    from fedbrats.commands.predict.predict_cases import predict_cases
    from fedbrats.commands.predict.tables import case_table
    from fedbrats.config.names import shown
    from fedbrats.tasks import segmentation as task

    try:
        own, words = own_folder(arguments)
        config = read_arguments(words)
        results, scores, system = predict_cases(config, lambda text: print(shown(text), flush=True), own)
    except EXPECTED as error:
        logging.getLogger(__name__).debug("failed", exc_info=True)
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    console.width = max(console.width, 130)  # a cut number is worse than a wrapped line
    console.print(case_table(results, system.regions))
    if means := scores.mean_scores():
        labelled = len({row["case"] for row in scores.rows})
        by_region = ", ".join(f"{region} {mean:.4f}" for region, mean in means.items())
        print(f"mean {task.MAIN_TITLE} of {labelled} labelled cases: {by_region}")
    unscored = sum(any(note.startswith("not scored") for note in result.notes) for result in results)
    if unscored:
        print(f"not scored, as their labels cannot be used: {unscored}; cases.csv says why")
    failed = sum(not result.ok for result in results)
    print(f"{len(results) - failed} cases predicted, {failed} failed: {config.output}")
    return 1 if failed else 0
