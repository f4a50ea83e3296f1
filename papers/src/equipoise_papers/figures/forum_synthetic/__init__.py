"""Figure A.1 of the thesis: MOML, MoCo and FORUM on the synthetic problem (A.32)."""
