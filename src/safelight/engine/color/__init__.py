"""What sample values mean: ICC profiles, CICP code points, and the conversion to sRGB."""
