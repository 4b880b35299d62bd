"""What a benchmark says of its data: counts, leaks, and how far shortcuts alone come."""

from __future__ import annotations

from anomalib_medical.benchmark.build import build_datamodule
from anomalib_medical.benchmark.plan import Plan
from anomalib_medical.benchmark.records import AuditFinding, DatasetInfo, ShortcutResult
from anomalib_medical.data.audit import audit, collect_splits
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.io import counted, finite_or_none


class DatasetError(ValueError):
    """A dataset cannot be scored."""


def describe_dataset(plan: Plan, name: str, workers: int = 1) -> DatasetInfo:
    """Check and audit a dataset.

    Args:
        plan: The plan.
        name: The dataset's name in it.
        workers: Reading processes.

    Raises:
        DatasetError: If its test set has not both normal and abnormal images.
    """
    data = build_datamodule(plan, name)
    data.prepare_data()
    data.setup()
    samples = collect_splits(data)
    report = audit(samples, window=data.window, workers=workers, progress=False)
    counts = samples.groupby("split").size()
    test = samples[samples.split == "test"]
    normal, abnormal = (int((test.label_index == label).sum()) for label in (0, 1))
    if not normal or not abnormal:
        msg = (
            f"The test set of {name} has {normal} normal and {counted(abnormal, 'abnormal image')}, expected both "
            "kinds: no metric that compares them can be computed."
        )
        raise DatasetError(msg)
    patients = samples.patient_id.replace("", None).nunique()
    has_mask = [
        masked
        for masked, label in zip(data.test_data.has_mask, data.test_data.samples.label_index, strict=True)
        if label
    ]
    return DatasetInfo(
        dataset=name,
        n_train=int(counts.get("train", 0)),
        n_held_out=int(counts.get("val", 0)),
        n_unlabeled=int(counts.get(UNLABELED, 0)),
        n_test_normal=normal,
        n_test_abnormal=abnormal,
        n_patients=int(patients) or None,
        has_masks=all(has_mask),
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
