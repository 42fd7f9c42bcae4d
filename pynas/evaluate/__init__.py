"""Scores of networks and architectures by zero-shot proxies."""

from pynas.evaluate._evaluator import ProxyEvaluator
from pynas.evaluate._prepare import PRECISIONS, Precision
from pynas.evaluate._score import Score, score

__all__ = ["PRECISIONS", "Precision", "ProxyEvaluator", "Score", "score"]
