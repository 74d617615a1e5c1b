"""Turns text into wrapped lines of styled spans; the widgets only paint them.

``sanitise`` makes foreign text harmless, ``cells`` measures it, ``wrap`` breaks it into lines,
``blocks`` cuts streaming Markdown into pieces and ``markdown`` lays a piece out. Nothing is
imported here, so that a widget pays only for the modules it uses.
"""
