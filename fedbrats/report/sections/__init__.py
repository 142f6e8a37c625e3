"""The sections of a report, each a function of a run's `Results` beside the template that prints what it found.

`<name>.py` with `section(results)` and `<name>.html.j2` are one section; a file `<name>_<what>` is a part of it. What
several of them need is a floor up: tables in `results.py`, macros in `macros.html.j2`. `SECTIONS` in `html.py` is their
list in the order of the page; a section that is not in it is not shown.
"""
