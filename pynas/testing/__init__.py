"""Conformance suites: what pynas asks of its own parts, for checking yours."""
