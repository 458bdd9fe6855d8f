"""The demo's synthetic catalog. The command line imports this file alone: it says what can be drawn."""

# The data sets that the demo draws, and their folders.
ROOTS = {"fashioniq": "data/fashionIQ_dataset", "shoes": "data/shoes", "cirr": "data/cirr_dataset"}
