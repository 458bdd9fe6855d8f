"""Data sets: from the public downloads' files to records, caption rules and validation protocols."""
