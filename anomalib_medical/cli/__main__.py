"""`python -m anomalib_medical.cli`."""

from anomalib_medical.cli.main import main

main()
