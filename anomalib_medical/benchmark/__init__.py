"""Models x datasets x seeds under the same conditions, resumable, and a report that needs no model."""
