"""Connections of a terminal to further programs in a machine (drumhead exec) and to its console."""
