"""The tables that are here, and how one is found."""

from __future__ import annotations

from equipoise.metrics.metric import Metric
from equipoise.registry import Registry
from equipoise_papers.published.table import PublishedTable

__all__ = ["CITYSCAPES_METRICS", "NYUV2_METRICS", "QM9_METRICS", "find_table", "published_tables"]

_COST = "COST (symmetry teleportation)"
_LDC = "LDC-MTL"
_THESIS = "Thesis (MOBLO, ASMG, NORMAL)"


def _metric(task: str, quantity: str, up: bool, unit: str = "") -> Metric:
    return Metric(f"{task} {quantity}", task, higher_is_better=up, unit=unit)


CITYSCAPES_METRICS = (
    _metric("semantic", "mIoU", True, "%"),
    _metric("semantic", "pixel accuracy", True, "%"),
    _metric("depth", "absolute error", False),
    _metric("depth", "relative error", False),
)
NYUV2_METRICS = (
    *CITYSCAPES_METRICS,
    _metric("normal", "mean angle", False, "°"),
    _metric("normal", "median angle", False, "°"),
    *(_metric("normal", f"within {angle}", True, "%") for angle in ("11.25", "22.5", "30")),
)
QM9_METRICS = tuple(
    _metric(task, "error", False) for task in ("mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv")
)
OFFICE_31_METRICS = tuple(_metric(task, "accuracy", True, "%") for task in ("amazon", "dslr", "webcam"))
OFFICE_HOME_METRICS = tuple(_metric(task, "accuracy", True, "%") for task in ("Art", "Clipart", "Product", "Real World"))
CLEANING_METRICS = tuple(
    _metric(task, quantity, True, "%") for task in ("MNIST", "FashionMNIST") for quantity in ("accuracy", "F1")
)

_BORROWED = "The single-task row is that of the paper's main table; this one prints none."
_ONLY_SUMMARIES = "Only summaries were printed."
_UNITS = "ε, ZPVE, U0, U, H and G are in meV, the others in QM9's units."

_TABLES = (
    PublishedTable("cost-table1", f"{_COST}, Table 1", "Cityscapes, 2 tasks", CITYSCAPES_METRICS, "STL"),
    PublishedTable("cost-table2", f"{_COST}, Table 2", "NYUv2, 3 tasks", NYUV2_METRICS, "STL"),
    PublishedTable("cost-table3-celeba", f"{_COST}, Table 3, left", "CelebA, 40 tasks", notes=(_ONLY_SUMMARIES,)),
    PublishedTable("cost-table3-qm9", f"{_COST}, Table 3, right", "QM9, 11 tasks", notes=(_ONLY_SUMMARIES,)),
    PublishedTable("cost-table4", f"{_COST}, Table 4", "Parts of COST left out, on Cityscapes", notes=(_ONLY_SUMMARIES,)),
    PublishedTable(
        "cost-table5",
        f"{_COST}, Table 5",
        "COST on top of three balancers, on Cityscapes",
        CITYSCAPES_METRICS,
        "STL",
        (_BORROWED, "The pixel accuracies cannot be read in the text that these rows were taken from."),
    ),
    PublishedTable(
        "cost-table6", f"{_COST}, Table 6", "COST on top of two balancers, on NYUv2", NYUV2_METRICS, "STL", (_BORROWED,)
    ),
    PublishedTable(
        "cost-table7", f"{_COST}, Table 7", "What triggers COST, on Cityscapes", CITYSCAPES_METRICS, "STL", (_BORROWED,)
    ),
    PublishedTable(
        "cost-table8", f"{_COST}, Table 8", "What COST adapts with, on Cityscapes", CITYSCAPES_METRICS, "STL", (_BORROWED,)
    ),
    PublishedTable("ldc-table1-celeba", f"{_LDC}, Table 1, CelebA", "CelebA, 40 tasks", notes=(_ONLY_SUMMARIES,)),
    PublishedTable(
        "ldc-table1-qm9", f"{_LDC}, Table 1, QM9", "QM9, 11 tasks; the rows are in Table 6", notes=(_ONLY_SUMMARIES,)
    ),
    PublishedTable(
        "ldc-table1-nyuv2", f"{_LDC}, Table 1, NYU-v2", "NYUv2, 3 tasks; the rows are in Table 7", notes=(_ONLY_SUMMARIES,)
    ),
    PublishedTable("ldc-table2", f"{_LDC}, Table 2", "Cityscapes, 2 tasks", CITYSCAPES_METRICS, "STL"),
    PublishedTable(
        "ldc-table3",
        f"{_LDC}, Table 3",
        "Statistics over the 40 losses on CelebA",
        tuple(
            Metric(f"loss {statistic}", "losses", higher_is_better=False) for statistic in ("mean", "deviation", "min", "max")
        ),
    ),
    PublishedTable("ldc-table4", f"{_LDC}, Table 4", "LDC-MTL's λ, on CelebA", notes=(_ONLY_SUMMARIES,)),
    PublishedTable(
        "ldc-table5", f"{_LDC}, Table 5", "LDC-MTL's settings and its Δm on four data sets", notes=(_ONLY_SUMMARIES,)
    ),
    PublishedTable("ldc-table6", f"{_LDC}, Table 6", "QM9, 11 tasks", QM9_METRICS, "STL", (_UNITS,)),
    PublishedTable("ldc-table7", f"{_LDC}, Table 7", "NYUv2, 3 tasks", NYUV2_METRICS, "STL"),
    PublishedTable("ldc-table8", f"{_LDC}, Table 8", "LDC-MTL's λ, on Cityscapes", CITYSCAPES_METRICS, "STL"),
    PublishedTable("ldc-table9", f"{_LDC}, Table 9", "Fixed weights, on Cityscapes", CITYSCAPES_METRICS, "STL"),
    PublishedTable("ldc-table10", f"{_LDC}, Table 10", "The order of the tasks, on CelebA", notes=(_ONLY_SUMMARIES,)),
    PublishedTable(
        "thesis-table3.2", f"{_THESIS}, Table 3.2", "Data hyper-cleaning on MNIST and FashionMNIST", CLEANING_METRICS
    ),
    PublishedTable("thesis-table3.3", f"{_THESIS}, Table 3.3", "Office-31, 3 tasks", OFFICE_31_METRICS, "STL"),
    PublishedTable("thesis-table3.4", f"{_THESIS}, Table 3.4", "NYUv2, 3 tasks", NYUV2_METRICS, "STL"),
    PublishedTable("thesis-table3.5", f"{_THESIS}, Table 3.5", "QM9, 11 tasks", QM9_METRICS, "STL", (_UNITS,)),
    PublishedTable(
        "thesis-table4.1-office31", f"{_THESIS}, Table 4.1, left", "A prompt tuned by queries, Office-31", OFFICE_31_METRICS
    ),
    PublishedTable(
        "thesis-table4.1-officehome",
        f"{_THESIS}, Table 4.1, right",
        "A prompt tuned by queries, Office-Home",
        OFFICE_HOME_METRICS,
    ),
    PublishedTable("thesis-table5.1-office31", f"{_THESIS}, Table 5.1, left", "NORMAL on Office-31", OFFICE_31_METRICS),
    PublishedTable("thesis-table5.1-officehome", f"{_THESIS}, Table 5.1, right", "NORMAL on Office-Home", OFFICE_HOME_METRICS),
    PublishedTable(
        "thesis-table5.2",
        f"{_THESIS}, Table 5.2",
        "NORMAL on NYUv2",
        NYUV2_METRICS,
        "EW",
        ("Δ_p is relative to equal weighting (EW).", "Shares are printed as fractions; here they are in percent."),
    ),
    PublishedTable("thesis-table5.3", f"{_THESIS}, Table 5.3", "NORMAL on CelebA, 40 tasks", notes=(_ONLY_SUMMARIES,)),
    PublishedTable(
        "thesis-table5.4-office31", f"{_THESIS}, Table 5.4, left", "Parts of NORMAL changed, Office-31", OFFICE_31_METRICS
    ),
    PublishedTable(
        "thesis-table5.4-officehome",
        f"{_THESIS}, Table 5.4, right",
        "Parts of NORMAL changed, Office-Home",
        OFFICE_HOME_METRICS,
        notes=("Both rows with constant positions are printed with the same four numbers.",),
    ),
)


def _fill() -> None:
    for table in _TABLES:
        _KNOWN.add(table.key, table)


_KNOWN: Registry[PublishedTable] = Registry("published table", fill=_fill, owner=lambda table: table.source)


def published_tables() -> tuple[PublishedTable, ...]:
    """All tables, paper by paper."""
    return tuple(_KNOWN)


def find_table(key: str) -> PublishedTable:
    """One table by its key, such as ``"ldc-table2"``.

    Raises:
        InputError: there is no such table.

    Example:
        >>> find_table("thesis-table3.3").value("FORUM", "delta_p")
        0.96
    """
    return _KNOWN.find(key)
