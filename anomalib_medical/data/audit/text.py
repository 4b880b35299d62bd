"""An audit's results as plain text."""

from __future__ import annotations

import math

from anomalib_medical.data.audit.audit import AuditReport
from anomalib_medical.data.audit.shortcuts import Shortcut
from anomalib_medical.io import agree, counted


def format_report(report: AuditReport, name: str) -> str:
    """Return the tables that the command line prints."""
    blocks = [f"Audit of {name}: {counted(len(report.samples), 'image')} read, {len(report.unreadable)} unreadable"]
    blocks.append(report.counts().to_string(index=False))
    if report.shortcuts:
        rows = [_row(shortcut) for shortcut in report.shortcuts]
        width = max(len(shortcut.name) for shortcut in report.shortcuts)
        head = f"{'Shortcut to the label':{width}}  AUROC [95% interval]   abnormal images have"
        lines = [f"{row[0]:{width}}  {row[1]:21}  {row[2]}" for row in rows]
        blocks.append("\n".join([head, *lines]))
    blocks += _leaks(report)
    if report.notes:
        blocks.append("\n".join(["Notes", *(f"- {note}" for note in report.notes)]))
    verdict = [counted(len(report.findings), "finding") if report.findings else "Nothing above the limits."]
    blocks.append("\n".join([*verdict, *(f"- {finding.message}" for finding in report.findings)]))
    return "\n\n".join(blocks)


def _row(shortcut: Shortcut) -> tuple[str, str, str]:
    interval = "no interval" if math.isnan(shortcut.low) else f"{shortcut.low:.3f}, {shortcut.high:.3f}"
    means = {"higher": "higher values", "lower": "lower values", "learnt": "other categories"}[shortcut.direction]
    return shortcut.name, f"{shortcut.auroc:.3f} [{interval}]", means


def _leaks(report: AuditReport) -> list[str]:
    lines = [
        f"{overlap.first} and {overlap.second} share {counted(overlap.patients, 'patient')}, "
        f"{agree(overlap.patients, 'who has', 'who have')} {overlap.images} ({overlap.share:.1%}) of the images of "
        f"{overlap.second}"
        for overlap in report.overlaps
    ]
    lines += [
        f"{count.first} and {count.second} share pictures: {count.images} ({count.share:.1%}) of {count.second} "
        f"(pairs: {', '.join(f'{number} {kind}' for kind, number in sorted(count.kinds.items()))})"
        for count in report.duplicates
    ]
    return ["\n".join(["Between splits", *(lines or ["no shared patients, no duplicates"])])]
