"""What comes from outside and is never believed: names of files, kinds of photos, text that is to be shown."""
