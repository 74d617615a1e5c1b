"""Programs that the benchmarks start: what they compare with, and the application with a watch on it."""
