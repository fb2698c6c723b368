"""What stands behind each main: settings, a run, its files, its screen."""
