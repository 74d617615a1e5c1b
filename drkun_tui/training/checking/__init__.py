"""What a data set holds, before anything is trained on it: counted, tokenized, shown.

The command ``drkun data check`` uses `check` in its own process; a screen asks `job`, a child process,
through `client`.
"""
