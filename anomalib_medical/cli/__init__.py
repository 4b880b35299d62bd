"""`anomalib-medical`: anomalib's command line with our subcommands."""
