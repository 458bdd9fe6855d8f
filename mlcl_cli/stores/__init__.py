"""Where the vectors and fields of a catalog are stored, and how they are searched."""
