"""How soon is a silent source noticed, and how often is a quiet one accused? Measured on real series: `make flatline`.

`series` reads the public data, `outages` breaks it, `rules` are the ways of watching and `score` compares them.
"""
