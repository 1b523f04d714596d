"""Samples, their median and spread, and how a workload is set beside the limit of the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Better = Literal["higher", "lower"]

_UNITS: Final = {"/s": 1.0, "ms": 1e3, "us": 1e6, "MiB": 1.0, "%": 1.0, "x": 1.0}


@dataclass(frozen=True)
class Samples:
    """Repetitions of one measurement: rates per second, or durations in seconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """Return the value below which `share` of the samples lie, between the two nearest."""
        ordered = sorted(self.values)
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    def show(self, unit: str) -> str:
        """Return the median with its unit, and the smallest and largest sample.

        >>> Samples((0.001, 0.002, 0.004)).show("ms")
        '2.00 ms (1.00-4.00)'
        """
        low, high = number(min(self.values), unit), number(max(self.values), unit)
        return f"{number(self.median, unit)} {unit} ({low}-{high})"


def samples(values: Sequence[float]) -> Samples:
    """Return samples of a sequence."""
    return Samples(tuple(values))


def number(value: float, unit: str) -> str:
    """Return a value, given per second or in seconds, MiB, percent or as a ratio, with three significant digits."""
    value *= _UNITS[unit]
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Paired:
    """A workload and the limit it is compared with, measured in turns; ratios are those of neighbours."""

    measured: Samples
    limit: Samples

    @property
    def ratio(self) -> Samples:
        return Samples(
            tuple(measured / limit for measured, limit in zip(self.measured.values, self.limit.values, strict=True))
        )


def in_turns(limit: Callable[[], float], workload: Callable[[], float], repetitions: int) -> Paired:
    """Measure A B A B: whatever else the machine does meets both; the first pair warms up and is dropped."""
    pairs = [(limit(), workload()) for _ in range(repetitions + 1)][1:]
    return Paired(samples([pair[1] for pair in pairs]), samples([pair[0] for pair in pairs]))


@dataclass(frozen=True)
class Line:
    """One line of a table of results."""

    what: str
    measured: str
    limit: str = ""
    ratio: str = ""
    target: str = ""
    reached: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = "" if self.reached is None else "yes" if self.reached else "**no**"
        return (self.what, self.measured, self.limit, self.ratio, self.target, verdict)


HEADER: Final = ("workload", "median (lowest-highest)", "limit of the same run", "ratio", "target", "reached")


def paired_line(
    what: str, paired: Paired, unit: str, limit_name: str, target: float | None, better: Better = "higher"
) -> Line:
    """Return the line of a workload whose target is a multiple of a limit."""
    ratio = paired.ratio
    line = Line(what, paired.measured.show(unit), f"{limit_name} {paired.limit.show(unit)}", ratio.show("x"))
    if target is None:
        return line
    is_reached = ratio.median >= target if better == "higher" else ratio.median <= target
    sign = ">=" if better == "higher" else "<="
    return Line(line.what, line.measured, line.limit, line.ratio, f"{sign} {target:g} x {limit_name}", is_reached)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
