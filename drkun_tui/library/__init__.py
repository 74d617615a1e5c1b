"""What models are on disk, what they say of themselves, and what fits this machine."""
