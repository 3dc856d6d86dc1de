"""Colour spaces: ICC profiles, CICP code points, and the conversion to sRGB."""
