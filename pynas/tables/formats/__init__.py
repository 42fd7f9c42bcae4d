"""File formats of the published benchmarks, read without the libraries that wrote them."""
