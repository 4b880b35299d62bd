"""The edge runtime: copied into every bundle and run there with ``python -m edge``, without torch and anomalib.

Only relative imports, the standard library and what the bundle's requirements.txt names may be imported here.
"""
