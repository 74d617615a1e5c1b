"""The parts of the screens, one widget to a file."""
