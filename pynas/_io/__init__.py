"""Files: those of others read within limits, ours written whole, and where results come from."""
