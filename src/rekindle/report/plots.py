"""Every plot of the project, in one style: plain numbers in, the bytes of an SVG or PNG out.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), told apart by colour-blind eyes; lines differ in dash and
marker too. Nothing here opens a window or changes matplotlib's global state.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

Format = Literal["svg", "png"]
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7F8C")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)), "-", (0, (1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, SOFT, GRID = "#2b2d3a", "#6f7280", "#e3e0d9"
SIZE = (7.2, 3.9)
"""Inches."""

STYLE = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "none",
}


class Curve(NamedTuple):
    """One line: y over x, with an interval where there is one; all of one length."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None


def learning_plot(
    curves: Sequence[Curve],
    *,
    title: str = "Learning curve",
    y_label: str = "score (planner = 1)",
    target: float | None = None,
    form: Format = "svg",
) -> bytes:
    """Scores over environment steps, with the interval as a band and the target as a line."""
    with _style(title):
        figure, axes = _figure(title, "environment steps", y_label)
        for i, curve in enumerate(curves):
            _line(axes, curve, i, marker=len(curve.x) <= 24)
        _target_line(axes, target)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        return _bytes(figure, [axes], form)


def adaptation_plot(
    agent: Curve,
    baselines: Sequence[Curve] = (),
    *,
    title: str = "Adaptation: what one more trial is worth",
    y_label: str = "last-trial score (planner = 1)",
    target: float | None = None,
    form: Format = "svg",
) -> bytes:
    """Score over the number of trials k: the agent with its interval, baselines as broken lines.

    A baseline of one point, such as the planner, spans all numbers of trials.
    """
    with _style(title):
        figure, axes = _figure(title, "trials in the episode, k", y_label)
        x = np.asarray(agent.x, float)
        _line(axes, agent, 0, marker=True, width=2.6, above=1)
        for i, curve in enumerate(baselines, start=1):
            spread = curve
            if len(curve.x) == 1:
                ends = np.asarray([x.min(), x.max()])
                spread = curve._replace(x=ends, y=np.repeat(curve.y, 2), low=None, high=None)
            _line(axes, spread, i, marker=False, width=1.5)
        if agent.low is not None and agent.high is not None:
            y = np.asarray(agent.y, float)
            spans = np.clip([y - np.asarray(agent.low), np.asarray(agent.high) - y], 0, None)
            axes.errorbar(x, y, spans, fmt="none", ecolor=PALETTE[0], elinewidth=1.4, capsize=3)
        _target_line(axes, target)
        axes.set_xticks(x, [f"{v:g}" for v in x])
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        return _bytes(figure, [axes], form)


def compounding_plot(
    arms: Mapping[str, Sequence[float] | Sequence[Sequence[float]] | np.ndarray],
    *,
    title: str = "Each goal costs less than the one before",
    log: bool = False,
    form: Format = "svg",
) -> bytes:
    """Environment steps spent until the n-th goal, one line per arm.

    Args:
        arms: label to cost of each goal in steps, `[goals]` or `[orders, goals]`; the band spans the orders.
        title: what the reader should see.
        log: a logarithmic vertical axis.
        form: svg or png.
    """
    with _style(title):
        figure, axes = _figure(title, "goals so far", "environment steps, cumulative")
        for i, (label, costs) in enumerate(arms.items()):
            total = np.cumsum(np.atleast_2d(np.asarray(costs, float)), axis=1)
            goals = np.arange(1, total.shape[1] + 1)
            several = total.shape[0] > 1
            low, high = (total.min(0), total.max(0)) if several else (None, None)
            _line(axes, Curve(label, goals, total.mean(0), low, high), i, marker=True)
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _bytes(figure, [axes], form)


def ratio_plot(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    bars: Sequence[float] | None = None,
    title: str = "Speed against the peer",
    x_label: str = "ratio (peer = 1)",
    form: Format = "svg",
) -> bytes:
    """Ratios as horizontal bars with the value written out; `bars` marks what each has to reach."""
    with _style(title, grid="x"):
        figure, axes = _figure(title, x_label, "", height=1.3 + 0.46 * len(labels))
        rows, widths = np.arange(len(labels)), np.asarray(values, float)
        axes.barh(rows, widths, height=0.56, color=PALETTE[0], alpha=0.9)
        if low is not None and high is not None:
            spans = np.clip([widths - np.asarray(low), np.asarray(high) - widths], 0, None)
            axes.errorbar(widths, rows, xerr=spans, fmt="none", ecolor=INK, elinewidth=1.3, capsize=3)
        ends = widths if high is None else np.maximum(widths, high)
        for row, end, value in zip(rows, ends, widths, strict=True):
            axes.annotate(
                f"{value:.3g}×", (end, row), xytext=(6, 0), textcoords="offset points", va="center", weight="bold"
            )
        if bars is not None:
            axes.scatter(
                bars, rows, marker="|", s=260, linewidths=2.4, color=PALETTE[1], zorder=3, label="bar to reach"
            )
        axes.axvline(1.0, color=SOFT, linewidth=1.1, linestyle=DASHES[1])
        axes.set_yticks(rows, labels)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * float(np.max([*ends, *(bars or []), 1.0])))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        return _bytes(figure, [axes], form)


class Panel(NamedTuple):
    """One of several pairs of axes above each other."""

    y_label: str
    curves: Sequence[Curve]
    teacher: float | None = None
    """Where a line for the teacher is drawn."""


def joined_plot(panels: Sequence[Panel], *, title: str, offline_updates: float = 0, form: Format = "svg") -> bytes:
    """Learning from data and then by acting, on one axis: updates up to a line, environment steps after it.

    Args:
        panels: one or more; x of a curve is environment steps, or, left of the line, updates less all of them.
        title: what the reader should see.
        offline_updates: how many there are; 0 leaves that part out.
        form: svg or png.
    """
    with _style(title):
        height = SIZE[1] if len(panels) == 1 else 0.9 + 1.75 * len(panels)
        figure = _empty(height)
        many = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
        many[0].set_title(_plain(title))
        for axes, panel in zip(many, panels, strict=True):
            axes.patch.set_alpha(0.0)
            axes.set_ylabel(panel.y_label)
            for i, curve in enumerate(panel.curves):
                _line(axes, curve, i, marker=len(curve.x) <= 24)
            if panel.teacher is not None:
                _level(axes, panel.teacher, "teacher")
        ends = [float(np.max(curve.x)) for panel in panels for curve in panel.curves if len(curve.x)]
        _joined_axis(many, offline_updates, max([0.0, *ends]))
        return _bytes(figure, many, form)


def _joined_axis(many: Sequence[Axes], updates: float, steps: float) -> None:
    """Ticks of both parts, each in its own unit, and what divides them."""
    share = updates / max(updates + steps, 1.0)
    acted = [tick for tick in MaxNLocator(max(round(6 * (1 - share)), 1)).tick_values(0, steps) if 0 <= tick <= steps]
    read = [tick for tick in MaxNLocator(max(round(6 * share), 1)).tick_values(0, updates) if 0 <= tick < updates]
    name, lowest = EngFormatter(sep=""), many[-1]
    lowest.set_xticks([tick - updates for tick in read] + acted, [name(tick) for tick in read + acted])
    lowest.set_xlabel("updates on the teacher's data, then environment steps" if updates else "environment steps")
    lowest.set_xlim(-updates, max(1.02 * steps, 1.0))
    for axes in many if updates else ():
        axes.axvspan(-updates, 0, color=GRID, alpha=0.45, linewidth=0, zorder=0)
        axes.axvline(0, color=SOFT, linewidth=1.0)


def profile_plot(
    curves: Sequence[Curve],
    *,
    title: str = "Performance profile",
    form: Format = "svg",
) -> bytes:
    """Share of runs that score above a threshold, over the threshold."""
    with _style(title):
        figure, axes = _figure(title, "normalised score, above which a run has to be", "share of runs")
        for i, curve in enumerate(curves):
            _line(axes, curve, i, marker=False)
        axes.axvline(1.0, color=SOFT, linewidth=1.2, linestyle=DASHES[2])
        axes.set_ylim(0, 1.02)
        return _bytes(figure, [axes], form)


def _style(title: str, grid: str = "y") -> contextlib.AbstractContextManager[None]:
    """Our style for a while; names inside an SVG follow from its title, so the same plot has the same bytes."""
    settings: dict[Any, Any] = {**STYLE, "svg.hashsalt": title, "axes.grid.axis": grid}
    return mpl.rc_context(settings)


def _empty(height: float) -> Figure:
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    figure.patch.set_alpha(0.0)
    FigureCanvasAgg(figure)
    return figure


def _figure(title: str, x_label: str, y_label: str, height: float = SIZE[1]) -> tuple[Figure, Axes]:
    figure = _empty(height)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.set_title(_plain(title))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _line(axes: Axes, curve: Curve, i: int, *, marker: bool, width: float = 2.0, above: int = 0) -> None:
    colour, i = PALETTE[i % len(PALETTE)], i % len(PALETTE)
    axes.plot(curve.x, curve.y, color=colour, linestyle=DASHES[i], linewidth=width, label=_plain(curve.label),
              marker=MARKERS[i] if marker else None, markersize=5, markeredgewidth=0, zorder=3 + above)  # fmt: skip
    if curve.low is not None and curve.high is not None:
        axes.fill_between(np.asarray(curve.x, float), curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)


def _target_line(axes: Axes, target: float | None) -> None:
    if target is not None:
        _level(axes, target, f"target\n{target:g}")


def _level(axes: Axes, height: float, name: str) -> None:
    """A line across, with its name at the right end."""
    axes.axhline(height, color=SOFT, linewidth=1.2, linestyle=DASHES[2])
    axes.annotate(name, (1, height), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                  va="center", color=SOFT, fontsize=9)  # fmt: skip


def _plain(words: str) -> str:
    """Words of a user as they stand: a dollar sign starts no formula."""
    return words.replace("$", r"\$")


def _bytes(figure: Figure, many: Sequence[Axes], form: Format) -> bytes:
    """The file; lines that have a name are in the legend, once."""
    named: dict[str, Any] = {}
    for axes in many:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if named:
        figure.legend([*named.values()], [*named], loc="outside lower center", ncols=min(len(named), 5),
                      handlelength=2.4, columnspacing=1.5)  # fmt: skip
    out = io.BytesIO()
    if form == "svg":
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    else:
        figure.patch.set_alpha(1.0)
        figure.savefig(out, format="png", dpi=200, facecolor="white")
    return out.getvalue()
