"""Tables that sum up others: LDC-MTL's Table 5 is its own row on all four data sets."""

from __future__ import annotations

from dataclasses import replace

from equipoise_papers.reproduce.families import celeba, cityscapes, nyuv2, qm9
from equipoise_papers.reproduce.recipe import Recipe

__all__ = ["RECIPES"]

_TABLE = "ldc-table5"

RECIPES = (
    Recipe(
        _TABLE,
        "LDC-MTL, Table 5",
        "LDC-MTL with its settings on four data sets",
        "four folders in one: celeba/, qm9/, cityscapes/ and nyuv2/, each as the recipes of that data set say",
        (
            replace(
                celeba.part("celeba", _TABLE, (celeba.ldc_row("CelebA"),), lr=1e-3, further=celeba._LDC, stepped=True),
                subfolder="celeba",
            ),
            replace(
                qm9.part("qm9", _TABLE, (replace(qm9.LDC_ROW, name="QM9"),), further=qm9._LDC),
                subfolder="qm9",
                against="ldc-table6",
            ),
            replace(
                cityscapes.part(
                    "cityscapes",
                    _TABLE,
                    cityscapes.ldc_rows(("Cityscapes", 0.1)),
                    lr=3e-4,
                    joint=True,
                    further=cityscapes.LDC_OPEN,
                ),
                subfolder="cityscapes",
                against="ldc-table2",
            ),
            replace(
                nyuv2.part("nyuv2", _TABLE, nyuv2.ldc_rows("NYU-v2"), lr=8e-5, joint=True, further=nyuv2.NYUV2_LDC_OPEN),
                subfolder="nyuv2",
                against="ldc-table7",
            ),
        ),
        family="all four",
    ),
)
