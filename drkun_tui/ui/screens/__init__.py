"""The places and dialogs, one screen to a file."""
