"""``python -m drkun_tui``."""

from drkun_tui.cli import main

raise SystemExit(main())
