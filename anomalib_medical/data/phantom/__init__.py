"""A deterministic generator of brain-like slices with lesions."""

from anomalib_medical.data.phantom.files import PhantomSpec, ensure_phantom, read_manifest

__all__ = ["PhantomSpec", "ensure_phantom", "read_manifest"]
