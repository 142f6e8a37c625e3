"""The table of methods as a paper prints it: Markdown and LaTeX (booktabs)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fedbrats.metrics.table import Facts
from fedbrats.report.cells import MISSING, number
from fedbrats.report.epsilon import epsilon_text
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import told


def printed(table: pd.DataFrame, metrics: Mapping[str, Facts]) -> pd.DataFrame:
    """Text cells, one row per method: mean ± s.d. by metric and region, worst institution, gap, % of pooled, cost.

    Args:
        table: of `studies.methods.method_table`.
        metrics: that are shown, in their order.
    """
    rows = []
    regions = task.in_order(set(table["region"]))
    for method, part in table.groupby("method", sort=False):
        cells = part.set_index(["metric", "region"])
        main = part[part["metric"] == task.MAIN]
        row = {"Method": method, "Seeds": str(part["seeds"].max()), "n": str(part["cases"].max())}
        for metric, facts in metrics.items():
            for region in regions:
                row[f"{facts.title} {region}{f' ({facts.unit})' if facts.unit else ''}"] = _mean(
                    cells, (metric, region), facts.decimals
                )
        row |= {f"Worst {region}": number(_first(main, region, "worst_mean"), 3) for region in regions}
        row |= {f"Gap {region}": number(_first(main, region, "gap"), 3) for region in regions}
        if table["percent_of_pooled"].notna().any():
            row |= {f"% of pooled {r}": number(_first(main, r, "percent_of_pooled"), 1) for r in regions}
        if np.isfinite(table["epsilon"]).any():
            row["Epsilon"] = epsilon_text(part["epsilon"].iloc[0])
        for column, title in (("mb_to_95", "MB to 95 %"), ("hours_to_95", "Hours to 95 %")):
            if table[column].notna().any():
                row[title] = number(part[column].iloc[0], 1)
        rows.append(row)
    return pd.DataFrame(rows)


def printed_labels(table: pd.DataFrame, metrics: Mapping[str, Facts], main: str) -> pd.DataFrame:
    """The same of methods that classify: mean ± s.d. by metric, then of `main` the worst institution, gap and chance.

    Args:
        table: of `studies.classified.answer.methods_with_chance`.
        metrics: that are shown, in their order; main: the one of them that methods are compared by.
    """
    rows = []
    for method, part in table.groupby("method", sort=False):
        cells = part.set_index("metric")
        row = {"Method": method, "Seeds": str(part["seeds"].max()), "n": str(part["cases"].max())}
        row |= {facts.title: _mean(cells, metric, facts.decimals) for metric, facts in metrics.items()}
        first = cells.loc[main] if main in cells.index else pd.Series(dtype=float)
        row |= {
            f"Worst {metrics[main].title}": number(first.get("worst_mean"), 3),
            f"Gap {metrics[main].title}": number(first.get("gap"), 3),
            "p of chance": MISSING
            if pd.isna(first.get("p_chance"))
            else told(first["p_chance"]).removeprefix("= "),
        }
        if np.isfinite(table["epsilon"]).any():
            row["Epsilon"] = epsilon_text(part["epsilon"].iloc[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(cells: pd.DataFrame, key: str | tuple[str, str], decimals: int) -> str:
    if key not in cells.index:
        return MISSING
    mean, sd = cells.loc[key, "mean"], cells.loc[key, "sd_seeds"]
    return number(mean, decimals) + ("" if pd.isna(sd) else f" ± {number(sd, decimals)}")


def _first(part: pd.DataFrame, region: str, column: str) -> float | None:
    found = part.loc[part["region"] == region, column]
    return float(found.iloc[0]) if len(found) else None


def markdown(cells: pd.DataFrame) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [cells.columns.tolist(), ["---"] * len(cells.columns), *cells.astype(str).to_numpy().tolist()]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |\n" for line in lines)


def latex(cells: pd.DataFrame) -> str:
    """A `tabular` with the rules of booktabs; every sign that TeX reads as something else is escaped."""
    text = cells.to_latex(index=False, escape=True, column_format="l" + "r" * (len(cells.columns) - 1))
    return text.replace("±", "$\\pm$").replace("∞", "$\\infty$")
