"""What the run cost in bytes and seconds."""

from __future__ import annotations

from fedbrats.report.arms import arm_title
from fedbrats.report.cells import number
from fedbrats.report.figures import cost_figure
from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results
from fedbrats.report.tables import cost_table
from fedbrats.runs.run_folder import RunFolder


def section(results: Results) -> Section:
    """Bytes and seconds of each arm, in all and by round."""
    run = results.run
    figure = data_uri(cost_figure(run), "svg") if len(run.rounds) else ""
    return Section("cost", "Bytes and seconds", {"rows": _cost_rows(run), "figure": figure}, nav="Cost")


def _cost_rows(run: RunFolder) -> list[dict[str, str]]:
    costs = cost_table(run)
    return [
        {
            "title": "Local models" if row["arm"] == "local" else arm_title(row["arm"]),
            "rounds": f"{row['rounds']}",
            "failed": f"{row['failed_rounds']}",
            **{name: number(row[name], 1) for name in costs.columns[3:]},
        }
        for row in costs.to_dict(orient="records")
    ]
