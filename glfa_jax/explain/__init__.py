"""Which cortex decides: what parts of the flat map contribute to what is decoded.

`measure` is pure: how a score of maps depends on pixels and areas, for any score. `scores` are
those of a trained decoder, `areas` divide the cortex, `faithful` tells whether a map keeps its
word.
"""
