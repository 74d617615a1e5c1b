"""From a fine-tune to files that others can use: merging, GGUF, proof, and the hubs."""
