"""EXIF, IPTC and XMP: read metadata, and copy the part that results may keep."""
