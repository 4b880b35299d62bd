"""Looks for what makes results on a data set flatter: leaks between splits, and shortcuts to the label."""

from anomalib_medical.data.audit.audit import AuditError, AuditLimits, AuditReport, Finding, audit
from anomalib_medical.data.audit.files import write_report
from anomalib_medical.data.audit.splits import collect_splits

__all__ = [
    "AuditError",
    "AuditLimits",
    "AuditReport",
    "Finding",
    "audit",
    "collect_splits",
    "write_report",
]
