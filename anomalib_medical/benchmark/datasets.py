"""What a benchmark says of its data: counts, leaks, and how far shortcuts alone come."""

from __future__ import annotations

from anomalib_medical.benchmark.build import ready_datamodule
from anomalib_medical.benchmark.plan import Plan
from anomalib_medical.benchmark.records import AuditFinding, DatasetInfo, ShortcutResult
from anomalib_medical.data.audit import audit, collect_splits
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import counted, finite_or_none


def describe_dataset(plan: Plan, name: str, workers: int = 1) -> DatasetInfo:
    """Check and audit a dataset, with so many reading processes.

    Raises:
        MedicalError: If its test set has not both normal and abnormal images.
    """
    data = ready_datamodule(plan, name)
    samples = collect_splits(data)
    report = audit(samples, window=data.window, workers=workers, progress=False)
    counts = samples.groupby("split").size()
    abnormal = samples[samples.split == "test"].label_index == 1
    if not abnormal.any() or abnormal.all():
        msg = (
            f"The test set of {name} has {(~abnormal).sum()} normal and {counted(abnormal.sum(), 'abnormal image')}, "
            "expected both kinds: no metric that compares them can be computed."
        )
        raise MedicalError(msg)
    masked = zip(data.test_data.has_mask, data.test_data.samples.label_index, strict=True)
    return DatasetInfo(
        dataset=name,
        n_train=int(counts.get("train", 0)),
        n_held_out=int(counts.get("val", 0)),
        n_unlabeled=int(counts.get(UNLABELED, 0)),
        n_test_normal=int((~abnormal).sum()),
        n_test_abnormal=int(abnormal.sum()),
        n_patients=samples.patient_id.replace("", None).nunique() or None,
        has_masks=all(has_mask for has_mask, label in masked if label),
        findings=[
            *(AuditFinding(found.check, "finding", found.text) for found in report.findings),
            *(AuditFinding("note", "note", note) for note in report.notes),
        ],
        shortcuts=[
            ShortcutResult(
                each.name,
                each.auroc,
                finite_or_none(each.estimate.low),
                finite_or_none(each.estimate.high),
                each.direction,
            )
            for each in report.shortcuts
        ],
    )
