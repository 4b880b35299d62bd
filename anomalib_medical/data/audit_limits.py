"""From where on something is a finding; a file of its own, as the command line shows it without loading the rest."""

from dataclasses import dataclass

MIN_SIMILARITY = 0.93


@dataclass(frozen=True)
class AuditLimits:
    """From where on something is a finding.

    Attributes:
        max_shortcut_auroc: A shortcut that tells normal from abnormal test images better than this is one, unless
            chance explains it (Mann-Whitney test over patients at a level of 0.05, divided by the number of shortcuts).
        max_patient_overlap: Patients that a held-out split may share with another split.
        max_duplicates: Images of a held-out split that may have a duplicate in another split.
        max_unreadable: Images that may be unreadable.
        min_similarity: Correlation, after alignment, from which on two images are near duplicates.
    """

    max_shortcut_auroc: float = 0.75
    max_patient_overlap: int = 0
    max_duplicates: int = 0
    max_unreadable: int = 0
    min_similarity: float = MIN_SIMILARITY

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        for name in ("max_shortcut_auroc", "min_similarity"):
            if not 0.5 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name):g}, expected a number from 0.5 to 1."
                raise ValueError(msg)
        for name in ("max_patient_overlap", "max_duplicates", "max_unreadable"):
            if getattr(self, name) < 0:
                msg = f"{name} is {getattr(self, name)}, expected 0 or more."
                raise ValueError(msg)
