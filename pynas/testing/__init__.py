"""Conformance suites of pynas's own parts, with which you can check yours."""
