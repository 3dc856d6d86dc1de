"""Guests: what can boot an image. One package per guest (``guest.linux``), one interface (``guest.contract``)."""
