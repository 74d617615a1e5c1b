"""Dr. Kun: ask a medical question in the terminal, answered by a model on this machine."""

__version__ = "0.1.0"
