"""What the program costs: start, speed, smoothness, turns and memory, each as a ratio within one run.

``python -m benchmarks`` measures everything and prints the table of ``docs/benchmarks.md``.
"""
