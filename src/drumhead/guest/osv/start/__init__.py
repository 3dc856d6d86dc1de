"""What starts a Python program in an OSv machine, in the program's own process, as OSv has only one.

It is put into the image (``guest.osv.skeleton``) and uses nothing but the standard library. Outside a machine it does
nothing, as nobody starts it there.
"""
