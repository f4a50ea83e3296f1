"""Tests of the solvers over the Gramian."""
