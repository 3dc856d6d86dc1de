"""Start a Python program in an OSv machine, in this same process, because OSv has only one.

``guest.osv.skeleton`` puts this package into the image. It uses only the standard library.
"""
