"""Search over HTTP: the API, and the page that uses it."""
