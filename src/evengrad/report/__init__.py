"""Report -> text, JSON, HTML."""

from evengrad.report.report import Report

__all__ = ["Report"]
