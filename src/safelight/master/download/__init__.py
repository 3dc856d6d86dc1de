"""Downloads of results and originals: single files, archives, and renditions for the web page."""
