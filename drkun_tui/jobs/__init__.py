"""Child processes and their events: `attached` ones end with whoever started them, `detached` ones do not."""

from drkun_tui.jobs.attached import Job, ended_by

__all__ = ["Job", "ended_by"]
