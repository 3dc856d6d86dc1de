"""Results and originals go out: one by one, as a ZIP, or as renditions for the web page."""
