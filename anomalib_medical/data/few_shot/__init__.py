"""Several tasks: learn on all but one, see a few normal images of that one, test on it."""
