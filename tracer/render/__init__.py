"""Rendering: results of the analysis as text, HTML, pictures and files for other tools.

    words — phrases: labels, sentences and table cells that the terminal and the page share
    picture — parts of every picture: layers of memory, markers of events, kinds of waiting
    terminal — text for a terminal, made with rich
    markdown — text for tickets and the pages of CI jobs
    page — the HTML page and its pictures
    fit — the answer of `fit`: the ends of runs, a text, a picture
    export — files and text formats for other tools
    plot — pictures as matplotlib Axes: `t.plot`
    fleet — the answer of `fleet`: a text and a page, from parts of `terminal` and `page`

`terminal`, `markdown`, `page`, `fit`, `export` and `plot` do not import each other.
"""
