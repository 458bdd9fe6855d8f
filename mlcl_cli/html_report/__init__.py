"""The HTML page that shows what runs have learned."""
