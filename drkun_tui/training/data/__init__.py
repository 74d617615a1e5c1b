"""From files to a cleaned, de-duplicated and split data set on disk.

Everything here but `summary` needs pyarrow and numpy, and is imported where data are read only: by the
training process and by ``drkun data check``.
"""
