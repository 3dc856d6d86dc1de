"""Start a Python program in an OSv machine, in the program's own process, as OSv has only one.

``guest.osv.skeleton`` puts this package into the image. It uses the standard library only.
"""
