"""The datasets that the papers use, one file each."""
