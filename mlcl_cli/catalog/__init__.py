"""Product tables: what a catalog holds, and the triplets that can be made of it."""
