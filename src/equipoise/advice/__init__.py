"""Advice: which method for a problem, from a diagnosis and a short race; and "keep plain training" where nothing is told apart.

``candidates.py`` says who takes part and what is left out, ``race.py`` lets them run by successive halving in a folder that
goes on where it was stopped, ``advice.py`` judges the outcome and says it in words, ``report.py`` lays it out.
"""

from equipoise.advice.advice import Advice, Entrant
from equipoise.advice.candidates import Candidate, candidates
from equipoise.advice.race import Race

__all__ = ["Advice", "Candidate", "Entrant", "Race", "candidates"]
