"""Looks for what makes results on a data set flatter: leaks between splits, and shortcuts to the label."""

from anomalib_medical.data.audit_limits import AuditLimits

from .audit import AuditReport, Finding, audit
from .leaks import collect_splits
from .report import claim_folder, format_report, write_report

__all__ = [
    "AuditLimits",
    "AuditReport",
    "Finding",
    "audit",
    "claim_folder",
    "collect_splits",
    "format_report",
    "write_report",
]
