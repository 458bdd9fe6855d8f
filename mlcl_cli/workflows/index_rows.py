"""Rows from Python into a catalog, through the same code as `mlcl index`."""
