"""The few-shot model on a device; in a bundle, a copy of that file takes this one's place."""

from anomalib_medical.models.d24fad.few_shot_device import FewShotDevice, openvino_core, order_statistic

__all__ = ["FewShotDevice", "openvino_core", "order_statistic"]
