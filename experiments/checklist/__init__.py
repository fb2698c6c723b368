"""The best practices of NAS research, answered from the files of this repository."""
