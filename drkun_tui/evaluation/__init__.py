"""What "better" means: suites of questions, metrics of the answers, and whether a difference is one."""
