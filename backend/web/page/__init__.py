"""The page for people, at the backend's own address.

    site       the door: adds the views, actions, pictures and live events to the server
    view       the interface of a view, and of the actions behind its buttons
    views/     one module per view; each names its template in templates/
    rendering  jinja2, the security headers, numbers and times in words
    forms      who posts a form, and that it comes from a page of ours
    live       server-sent events: parts of a page that change while one looks
    plots      charts for plotly's bundle
    overlays   regions of Label Studio as SVG over a picture

A view reads with `loop` and `loop.insight`, and returns a frozen dataclass, which its template shows. The browser gets
HTML, one style sheet and a few ES modules; nothing comes from another host.
"""
