"""EXIF, IPTC and XMP: what a photo says about itself, and how much of it may leave."""
