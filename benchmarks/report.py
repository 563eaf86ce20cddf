"""Shows the outcome: a block per row as it is done, the table of targets, and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from .machine import Machine
from .model import BASELINE, JUDGED, Metric, Target
from .runner import Figure, Outcome

NAME_WIDTH = 26
VALUE_WIDTH = 12
RATIO_WIDTH = 24


def number(value: float) -> str:
    """Format three significant digits, and all digits of large numbers."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()


def ratio_text(figure: Figure | None) -> str:
    """Format a ratio with its quartiles."""
    if figure is None:
        return ""
    low, high = number(figure.low), number(figure.high)
    return f"{number(figure.median)} [{low}-{high}]"


def target_text(bound: float | None, target: Target, unit: str) -> str:
    """Format one bound of a target in its own terms."""
    if bound is None:
        return ""
    text = number(bound) if target.on == "ratio" else with_unit(bound, unit)
    return f">= {text}" if target.at_least else text


def verdict(outcome: Outcome, metric: Metric) -> str:
    """Say whether who is judged reaches this metric's target; empty if none is set."""
    if metric.target is None:
        return ""
    figures = outcome.ratio if metric.target.on == "ratio" else outcome.absolute
    figure = figures(outcome.row.judged, metric)
    return "not measured" if figure is None else metric.target.verdict(figure.median)


def block(outcome: Outcome) -> str:
    """Show one row with everybody who took part in it."""
    row = outcome.row
    lines = [f"## {row.title}  ({row.name})"]
    if row.note:
        lines.append(f"   {row.note}")

    for metric in row.metrics:
        lines.append("")
        lines.append(f"   {metric.title}{_asked(outcome, metric)}")
        lines.extend(
            _line(outcome, metric, standing.name) for standing in outcome.standings
        )

    lines.extend(_problems(outcome))
    return "\n".join(lines) + "\n"


def _asked(outcome: Outcome, metric: Metric) -> str:
    kind = "" if metric.clock == "count" else f" ({metric.clock} time)"
    if metric.target is None:
        return kind
    bounds = target_text(metric.target.limit, metric.target, metric.unit)
    if metric.target.stretch is not None:
        stretch = target_text(metric.target.stretch, metric.target, metric.unit)
        bounds += f", stretch {stretch}"
    of = "x" if metric.target.on == "ratio" else "value"
    return f"{kind}; asked of {of}: {bounds} -> {verdict(outcome, metric)}"


def _line(outcome: Outcome, metric: Metric, name: str) -> str:
    figure = outcome.absolute(name, metric)
    standing = outcome.standing(name)
    label = f"{name} *" if standing and standing.other_driver else name
    if figure is None:
        return f"     {label:<{NAME_WIDTH}} {'-':>{VALUE_WIDTH}}"

    value = with_unit(figure.median, metric.unit)
    spread = f"[{number(figure.low)}-{number(figure.high)}]"
    line = f"     {label:<{NAME_WIDTH}} {value:>{VALUE_WIDTH}}  {spread:<{RATIO_WIDTH}}"
    if metric.comparable:
        line += f" x {ratio_text(outcome.ratio(name, metric))}"
    return line.rstrip()


def _problems(outcome: Outcome) -> list[str]:
    lines = []
    for standing in outcome.standings:
        if standing.errors:
            lines.append(f"   ! {standing.name}: {standing.errors} errors")
        if standing.problem:
            lines.append(f"   ! {standing.name}: {standing.problem}")
    if any(standing.other_driver for standing in outcome.standings):
        lines.append("   * another driver: its connections cost something else")
    return ["", *lines] if lines else []


def summary(outcomes: list[Outcome]) -> str:
    """Show the targets, as Markdown: each, and whether it is reached."""
    lines = [
        f"| | {BASELINE} | {JUDGED} | x [quartiles] | at most | stretch | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        _summary_line(outcome, metric, metric.target)
        for outcome in outcomes
        for metric in outcome.row.metrics
        if metric.target is not None
    ]
    return "\n".join(lines)


def _summary_line(outcome: Outcome, metric: Metric, target: Target) -> str:
    judged = outcome.row.judged
    ratio = outcome.ratio(judged, metric) if metric.comparable else None
    cells = [
        f"{outcome.row.title}: {metric.title}",
        _value(outcome.absolute(BASELINE, metric), metric),
        _value(outcome.absolute(judged, metric), metric),
        ratio_text(ratio),
        target_text(target.limit, target, metric.unit),
        target_text(target.stretch, target, metric.unit),
        verdict(outcome, metric),
    ]
    return "| " + " | ".join(cells) + " |"


def _value(figure: Figure | None, metric: Metric) -> str:
    return "-" if figure is None else with_unit(figure.median, metric.unit)


def dump(path: Path, machine: Machine, outcomes: list[Outcome]) -> None:
    """Write every round of every contender, with the machine they ran on."""
    document = {
        "machine": asdict(machine),
        "rows": [_raw(outcome) for outcome in outcomes],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _raw(outcome: Outcome) -> dict[str, object]:
    row = outcome.row
    return {
        "name": row.name,
        "title": row.title,
        "metrics": [asdict(metric) for metric in row.metrics],
        "contenders": [
            {**asdict(each), "baseline": row.baseline_of(each.name)}
            for each in outcome.standings
        ],
    }
